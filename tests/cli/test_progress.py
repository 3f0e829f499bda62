"""Progress is for terminals: there it is replaced and removed; a pipe gets none."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest

from hsm_keys.cli import progress as module
from hsm_keys.cli.progress import count_down, progress, spelled


class _Clock:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def shown(screen: io.StringIO) -> list[str]:
    return screen.getvalue().split("\r\x1b[K")[1:]


def test_a_terminal_counts_down_and_is_clean_at_the_end(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Screen()
    monkeypatch.setattr("sys.stderr", screen)
    count_down(3, "until it ends")
    assert shown(screen) == ["3 s until it ends", "2 s until it ends", "1 s until it ends", ""]
    assert clock.now == 103.0


def test_a_pipe_and_json_see_nothing_and_wait_as_long(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, screen = io.StringIO(), _Screen()
    monkeypatch.setattr("sys.stderr", pipe)
    count_down(2, "until it ends")
    monkeypatch.setattr("sys.stderr", screen)
    count_down(2, "until it ends", quiet=True)
    assert (pipe.getvalue(), screen.getvalue(), clock.now) == ("", "", 104.0)


def test_it_is_removed_also_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Screen()
    monkeypatch.setattr("sys.stderr", screen)
    with suppress(ValueError), progress() as show:
        show("half way")
        raise ValueError
    assert shown(screen) == ["half way", ""]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (600, "10 min 00 s"), (3723, "1 h 02 min 03 s")],
)
def test_times_are_spelled_for_people(seconds: float, text: str) -> None:
    assert spelled(seconds) == text
