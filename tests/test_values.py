"""Which texts have the form of a secret, and which are names."""

from __future__ import annotations

import pytest

from hsm_keys.values import describe, may_be_shown, shown


@pytest.mark.parametrize(
    "secret",
    [
        "s.baxEV1WSFYRaMxgsTXLlAEt7",  # OpenBao's, which `bao token create` printed
        "s.baxEV1WSFYRaMxgsTXLlAEt7.nspace",
        "hvs.CAESIJcanary0123456789",
        "hvb.AAAAAQcanary",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # AWS's example of a secret access key
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
    ],
)
def test_a_secret_in_the_place_of_a_name_is_described(secret: str) -> None:
    assert shown(secret) == describe(secret)
    assert secret[3:] not in shown(secret)


@pytest.mark.parametrize("name", ["prod", "s.maker", "bots.maker", "maker-2026.11", "hv", "b.2026-11-29"])
def test_a_name_is_shown(name: str) -> None:
    assert may_be_shown(name)


@pytest.mark.parametrize("path", ["/usr/lib/softhsm/libsofthsm2.so", "./x.pem", "something"])
@pytest.mark.parametrize(
    ("around", "said"),
    [('"{}"', "quotes"), ("'{}'", "quotes"), ("{}\n", "white space"), (" {}", "white space"), ("{}", "")],
)
def test_what_a_paste_or_a_shell_has_put_round_a_value_is_said(path: str, around: str, said: str) -> None:
    text = describe(around.format(path))
    assert text.startswith("a path" if "/" in path else "text of")
    assert text.endswith(f"with {said} around it)") if said else "around it" not in text
    assert path not in text
