"""The PIN guard on a token that counts: openCryptoki shows COUNT_LOW and FINAL_TRY, and locks after the fourth try."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.errors import PinLockedError
from tests.support import opencryptoki

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.module.conftest import Subject

pytestmark = pytest.mark.module


@pytest.fixture
def wrong(subject: Subject, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "wrong"
    path.touch(mode=0o600)
    path.write_text("0000wron\n")
    yield path
    opencryptoki.reset_pin()


def run(subject: Subject, pin_file: Path, *options: str) -> int:
    """Look a key up as a person would, in a process that knows nothing of earlier tries; return the exit code."""
    uri = subject.uri.partition("&pin-source=")[0]
    command = [sys.executable, "-m", "hsm_keys", "show", "nobody", "--store", uri, "--pin-file", str(pin_file)]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    assert "0000wron" not in done.stdout + done.stderr
    return done.returncode


def test_the_last_try_is_never_taken_unless_asked_for(subject: Subject, wrong: Path, tmp_path: Path) -> None:
    seen = []
    while subject.state().pin != "final":
        assert run(subject, wrong) == 4
        seen.append(subject.state().pin)
        assert len(seen) < 4
    assert seen[-1] == "final"
    for _ in range(3):
        assert run(subject, wrong) == 4  # refused here: nothing was tried
        assert subject.state().pin == "final"
    with pytest.raises(PinLockedError, match="nothing was tried"):
        open_store(subject.uri)  # the right PIN isn't tried either: nobody knows that it is right
    assert run(subject, wrong, "--force-pin") == 4
    assert subject.state().pin == "locked"
    for options in ((), ("--force-pin",)):
        assert run(subject, wrong, *options) == 4
        assert subject.state().pin == "locked"


def test_a_right_pin_with_consent_clears_the_counter(subject: Subject, wrong: Path) -> None:
    while subject.state().pin != "final":
        assert run(subject, wrong) == 4
    with open_store(subject.uri, force_pin=True) as opened:
        opened.keys()
    assert subject.state().pin == "ok"
