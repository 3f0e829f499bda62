"""What the judge lets pass, since somebody asked for it or only a person could know; and that it lets no more pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.doubles import doubles
from tests.simulation.effects import Fault, Kind
from tests.simulation.life import Life
from tests.simulation.script import Name, Script, Step
from tests.simulation.seen import SEEN


def _violation(script: Script) -> str:
    with doubles():
        return Life(script).live().violation


def _script(store: str, begin: tuple[str, ...], *steps: Step, bystander: bool = False) -> Script:
    return Script(Name(1), store, begin, steps, machines=1, bystander=bystander)


def _fault(kind: Kind, at: int, *, changes: bool = True) -> tuple[Fault, ...]:
    return (Fault(kind, at, changes),)


def _repeated(pause_s: float = 0.0, operator: int = 0) -> Script:
    """Return a life in which a registration is carried out again while `revoke --destroy` runs."""
    steps = (Step(0, "enroll", faults=_fault(Kind.TWICE, 1)), Step(operator, "revoke-destroy", pause_s=pause_s))
    return _script("vault", ("mint",), *steps)


PASSES = {
    "a store comes back without a key that its entry names": Script(
        Name(1),
        "vault",
        (),
        (
            Step(0, "enroll", faults=(Fault(Kind.LATE, 6, seconds=1.5),), pause_s=0.0),
            Step(1, "adopt", pause_s=0.0),
        ),
        machines=1,
        yesterday=0,
    ),
    "no key is left that could ask about one that another key had deleted": Script(
        Name(1),
        "token",
        ("generate",),
        (
            Step(0, "generate", "bot", pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.KILL_AFTER, 39, changes=False),), pause_s=0.0),
            Step(0, "revoke-destroy", "bot", faults=(Fault(Kind.KILL_AFTER, 21, changes=False),)),
        ),
        machines=1,
        bootstrap=False,
    ),
    "whoever revokes a name that only Kalshi has for an API key asks for its end": _script(
        "token", (), Step(0, "revoke", environment="demo"), bystander=True
    ),
    "nobody but a person knows that a pair was registered by hand in another environment": _script(
        "vault", ("mint",), Step(0, "adopt", environment="demo", faults=_fault(Kind.UNREACHABLE, 1)), Step(1, "enroll")
    ),
    "nor that it was before the pair was destroyed there": _script(
        "vault",
        ("mint",),
        Step(0, "adopt", faults=_fault(Kind.KILL_BEFORE, 8, changes=False)),
        Step(0, "revoke-destroy", environment="demo"),
    ),
    "nobody is left to ask where the last two keys were revoked, and one of them still has its name in KMS": Script(
        Name(1),
        "kms",
        ("enroll",),
        (
            Step(0, "enroll", "bot"),
            Step(0, "revoke-destroy", faults=_fault(Kind.UNREACHABLE, 3)),
            Step(0, "revoke-destroy", "bot"),
        ),
        bootstrap=False,
    ),
    "nobody knows right after a revoke without an answer that the deletion is still under way": _script(
        "token",
        ("enroll",),
        Step(0, "revoke", faults=(Fault(Kind.LATE, 1, seconds=1.5),)),
        Step(0, "adopt", pause_s=0.0),
    ),
    **{
        f"nobody knows of a registration in {store} that came after another machine had destroyed the pair": Script(
            Name(1),
            store,
            ("mint",),
            (
                Step(0, "enroll", faults=(Fault(Kind.TURN, post), Fault(Kind.KILL_BEFORE, post + 1)), pause_s=0.0),
                Step(1, "enroll", pause_s=0.0),
                Step(1, "revoke-destroy", pause_s=0.0),
            ),
        )
        for store, post in (("token", 3), ("kms", 2))
    },
    **{
        f"nobody knows of a registration in {store} that came while another machine was destroying the pair": Script(
            Name(1),
            store,
            ("mint",),
            (
                Step(0, "enroll", faults=(Fault(Kind.TURN, post), Fault(Kind.KILL_AFTER, post)), pause_s=0.0),
                Step(1, "enroll", pause_s=0.0),
                Step(1, "revoke-destroy", faults=(Fault(Kind.TURN, destroy),), pause_s=0.0),
            ),
        )
        for store, post, destroy in (("token", 3, 3), ("kms", 2, 2), ("vault", 1, 4))
    },
    "enroll says which API key it had to leave, whose pair another machine had destroyed": Script(
        Name(1),
        "vault",
        (),
        (
            Step(0, "enroll", faults=(Fault(Kind.TURN, 5), Fault(Kind.LOSE_REQUEST, 7)), pause_s=0.0),
            Step(1, "enroll", pause_s=0.0),
            Step(1, "revoke-destroy", pause_s=0.0),
        ),
        lag_s=1.5,
    ),
    "nor right before its end that a deletion is carried out which a revoke has asked for": Script(
        Name(1),
        "vault",
        ("mint",),
        (
            Step(0, "enroll", faults=(Fault(Kind.LATE, 2, seconds=4.0),), pause_s=0.0),
            Step(0, "revoke", faults=(Fault(Kind.LATE, 1, seconds=0.5),), pause_s=0.0),
            Step(0, "rotate", pause_s=0.0),
            Step(0, "adopt", pause_s=0.0),
        ),
        machines=1,
        lag_s=0.4,
    ),
    **{
        f"nobody knows of a registration in {store} without an answer whose pair another machine had destroyed": Script(
            Name(1),
            store,
            ("mint",),
            (
                Step(0, "enroll", faults=(Fault(Kind.TURN, post), Fault(Kind.LOSE_ANSWER, post)), pause_s=0.0),
                Step(1, "enroll", pause_s=0.0),
                Step(1, "revoke-destroy", pause_s=0.0),
            ),
        )
        for store, post in (("token", 3), ("kms", 2), ("vault", 1))
    },
    "nobody but the person knows of a pair that is registered by hand while another machine destroys it": Script(
        Name(1),
        "token",
        ("mint",),
        (
            Step(0, "adopt", faults=(Fault(Kind.TURN, 6), Fault(Kind.TURN, 36, changes=False)), pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.TURN, 62, changes=False),), pause_s=0.0),
        ),
    ),
    "a successor in KMS that is made late, after a revoke, waits for the next rotation": Script(
        Name(1),
        "kms",
        ("enroll",),
        (
            Step(
                0,
                "rotate",
                faults=(Fault(Kind.LATE, 1, seconds=1.5), Fault(Kind.TURN, 24, changes=False)),
                pause_s=0.0,
            ),
            Step(1, "revoke-destroy", faults=_fault(Kind.TURN, 2, changes=False), pause_s=60.0),
            Step(1, "enroll", faults=_fault(Kind.KILL_BEFORE, 27, changes=False), pause_s=0.0),
        ),
        machines=1,
    ),
    "nobody knows of a registration that the network carries out again while its pair is being destroyed": _repeated(),
    "nor where another operator destroys it": _repeated(operator=1),
    "nor does an enroll that goes on with the next pair of that name": replace(
        _repeated(),
        steps=(
            *_repeated().steps,
            Step(0, "enroll", faults=_fault(Kind.KILL_AFTER, 5), pause_s=0.0),
        ),
    ),
}


@pytest.mark.parametrize("what", PASSES)
def test_the_judge_lets_pass(what: str) -> None:
    assert not _violation(PASSES[what])


def test_a_registration_that_came_late_is_deleted_again_by_a_run_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here enroll doesn't, and says nothing of it."""
    monkeypatch.setattr("hsm_keys.lifecycle.registering.Registrar._delete", lambda *_: "")
    monkeypatch.setattr("hsm_keys.lifecycle.registering.Registrar._yield_to_others", lambda *_: None)
    steps = (
        Step(0, "enroll", faults=_fault(Kind.TURN, 2), pause_s=0.0),
        Step(1, "enroll", pause_s=0.0),
        Step(1, "revoke-destroy", pause_s=0.0),
    )
    SEEN.clear()
    wrong = _violation(Script(Name(1), "kms", ("mint",), steps))
    SEEN.clear()
    assert "nobody has the private half" in wrong


def test_a_registration_that_was_carried_out_again_is_looked_for_in_the_last_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here revoke doesn't look for it there."""
    monkeypatch.setattr("hsm_keys.lifecycle.revoke.check_none_since", lambda *_: None)
    SEEN.clear()
    wrong = _violation(_repeated(pause_s=0.1))
    SEEN.clear()
    assert "was destroyed, and that lives" in wrong


def test_the_store_s_key_wins_over_the_one_that_kalshi_calls_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here revoke ends a namesake in the other environment, where the store has a key of that name."""
    monkeypatch.setattr("hsm_keys.lifecycle.revocation_plan.check_environment", lambda *_: None)
    monkeypatch.setattr("hsm_keys.lifecycle.revocation_plan.ours", lambda _: [])
    script = _script("token", ("enroll",), Step(0, "revoke", environment="demo"), bystander=True)
    assert "somebody else's API key" in _violation(script)


def test_enroll_has_to_name_what_it_leaves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here enroll doesn't see that a generate was interrupted, and then leaves its API key out of what it says."""
    script = _script("token", (), Step(0, "generate", faults=_fault(Kind.KILL_AFTER, 4)), Step(0, "enroll"))
    monkeypatch.setattr("hsm_keys.lifecycle.enroll.check_no_import_begun", lambda *_: None)
    SEEN.clear()
    assert not _violation(script)
    monkeypatch.setattr("hsm_keys.lifecycle.registering.unclaimed", lambda *_: [])
    SEEN.clear()
    assert "has a further API key" in _violation(replace(script, name=Name(2)))
    SEEN.clear()


def test_a_command_that_fails_names_the_api_key_that_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.lifecycle.generate.Generator._undo", lambda *_: None)
    SEEN.clear()
    wrong = _violation(_script("vault", (), Step(0, "generate", faults=_fault(Kind.UNREACHABLE, 3))))
    SEEN.clear()
    assert "which nobody can sign for" in wrong
