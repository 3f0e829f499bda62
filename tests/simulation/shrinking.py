"""Cuts a life that went wrong down to what matters, and tells its story."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.simulation.life import Life
from tests.simulation.script import smaller

if TYPE_CHECKING:
    from tests.simulation.script import Script

_MOST_LINES = 30


def _kind(violation: str) -> str:
    """Return what went wrong, without names and numbers."""
    return re.sub(r"'[^']*'|\.\.\.\w+|\d+", "", violation)[:60]


def shrunk(script: Script) -> Script:
    """Return the smallest life that goes wrong in the same way; the same one if it goes right."""
    wrong = _kind(Life(script).live().violation)
    if not wrong:
        return script
    again = True
    while again:
        again = False
        for less in smaller(script):
            if _kind(Life(less).live().violation) == wrong:
                script, again = less, True
                break
    return script


def told(script: Script) -> list[str]:
    """Tell the story of a life, in 30 lines at most."""
    lived = Life(script, telling=True).live()
    head = [f"seed {script.name}: {script}", *map(str, script.steps)]
    end = [lived.violation or "all is as it should be"]
    room = _MOST_LINES - len(head) - len(end)
    story = _without_repetition(lived.story)
    if len(story) > room:
        first, last = story[: room // 3], story[room // 3 - room + 1 :]
        story = [*first, f"... {len(story) - len(first) - len(last)} more ...", *last]
    return [*head, *story, *end]


def _without_repetition(story: list[str]) -> list[str]:
    """Leave out what is said again and again, but for the time."""
    told: list[str] = []
    for line in story:
        if line[9:] not in {earlier[9:] for earlier in told[-2:]}:
            told.append(line)
    return told
