"""Each workflow, killed after its effects, and run again in another environment: that one ends and changes nothing.

There somebody has an API key of the same name, whose private half is in no store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.crash.workflows import WORKFLOWS, Workflow
from tests.crash.worlds import NAME
from tests.support.killing import Moment
from tests.support.kills import unlike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.crash.witness import Contents
    from tests.crash.worlds import World

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]

KILLED = [workflow for workflow in WORKFLOWS if workflow.name in {"generate", "rotate", "finish", "abort", "revoke"}]
SOMEBODY_ELSE = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


@pytest.fixture
def elsewhere() -> Iterator[SandboxServer]:
    with SandboxServer(key_type="ed25519") as server:
        server.add_key(NAME, SOMEBODY_ELSE)
        yield server


@pytest.mark.parametrize("workflow", KILLED, ids=[workflow.name for workflow in KILLED])
def test_killed_anywhere_it_is_not_ended_in_another_environment(
    workflow: Workflow, make_world: Callable[..., World], elsewhere: SandboxServer
) -> None:
    world = make_world(workflow.stage)
    there = {
        "KALSHI_API_BASE_URL": elsewhere.base_url,
        "KALSHI_KEY_ID": elsewhere.bootstrap_key_id,
        "KALSHI_PRIVATE_KEY": elsewhere.bootstrap_pem,
    }
    lived = set(elsewhere.state.keys)
    with world.start() as killer:
        command, _ = workflow.commands("ed25519")
        world.restore("ed25519")
        places = killer.run(command, environment=world.environment).places
        for place in unlike(places):
            if place == 1:  # nothing has happened yet: it may begin there
                continue
            world.restore("ed25519")
            assert killer.run(command, Moment(place), world.environment).killed
            before, living = world.contents("message"), world.live()
            ended = killer.run(command, environment=world.environment | there)
            assert ended.status in {2, 5}, f"killed {places[place - 1]}: {ended}"
            assert _named(world.contents("message")) == _named(before), f"killed {places[place - 1]}: {ended}"
            assert world.live() == living, ended
            assert set(elsewhere.state.keys) == lived, ended
            assert {seen.method for seen in elsewhere.requests} <= {"GET"}, ended
    assert len(places) > 3


def _named(contents: Contents) -> list[tuple[str, str]]:
    """Return the private halves; what is left of one that was destroyed, a store may clear whenever it is opened."""
    return sorted((half.name, half.bound) for half in contents.halves)
