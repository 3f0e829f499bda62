"""A secret in the place of a path: nothing is made that has it for its name, and no error of a path repeats it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from hsm_keys.kalshi.errors import error_of
from tests.support.canaries import CANARIES, PEM, pieces, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.softhsm

ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


@pytest.mark.parametrize(
    "words",
    [
        ("proxy", "--name", "prod", "--audit"),
        ("proxy", "--name", "prod", "--socket"),
        ("generate", "other", "--to-file"),
        ("bench", "prod", "--html"),
        ("custody", "--html"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("canary", [PEM.replace("/", "x"), PEM], ids=["no slash", "as it is"])
def test_nothing_is_made_that_has_a_private_key_for_its_name(
    words: tuple[str, ...], canary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words, canary).code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_secret_in_a_path_is_not_repeated() -> None:
    what = "the base64 of a private key"
    _check(what, "request", "GET", f"/{CANARIES[what]}", "prod", "--api-key-id", ID, "-v")
    _check(what, "sign", "GET", f"/{CANARIES[what]}", "prod", "--api-key-id", ID)
    request = httpx2.Request("GET", f"https://kalshi.test/trade-api/v2/{CANARIES[what]}")
    for content in (b'{"code": "not_found"}', b"<html>none"):
        error = error_of(httpx2.Response(404, content=content, request=request))
        assert not [piece for piece in pieces(CANARIES[what]) if piece in f"{error} {error.hint}"]


def test_a_secret_that_names_a_folder_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    what = "the base64 of a private key"
    _check(what, "proxy", "--name", "prod", "--listen", "127.0.0.1:0", "--clients", CANARIES[what])


def _check(what: str, *arguments: str) -> None:
    ran = run(*arguments)
    assert not [piece for piece in pieces(CANARIES[what]) if piece in ran.text], f"{what}: {ran.text}"
