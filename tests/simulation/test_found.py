"""Lives in which something went wrong once, cut down to what mattered."""

from __future__ import annotations

import pytest

from tests.simulation.doubles import doubles
from tests.simulation.effects import Fault, Kind
from tests.simulation.life import Life
from tests.simulation.script import Name, Script, Step

_NAME = Name(1)


def before(at: int) -> tuple[Fault, ...]:
    return (Fault(Kind.KILL_BEFORE, at),)


def after(at: int) -> tuple[Fault, ...]:
    return (Fault(Kind.KILL_AFTER, at),)


def turn(at: int) -> tuple[Fault, ...]:
    return (Fault(Kind.TURN, at),)


def life(
    store: str,
    begin: tuple[str, ...],
    *steps: Step,
    lag_s: float = 0.0,
    bootstrap: bool = True,
    yesterday: int = -1,
) -> Script:
    return Script(_NAME, store, begin, steps, machines=1, lag_s=lag_s, bootstrap=bootstrap, yesterday=yesterday)


FOUND = {
    "abort left the record in Vault of a further successor that another machine had begun to make": Script(
        _NAME,
        "vault",
        ("enroll",),
        (
            Step(
                0,
                "rotate",
                faults=(Fault(Kind.TURN, 36, changes=False), Fault(Kind.UNREACHABLE, 2)),
                pause_s=0.0,
            ),
            Step(1, "rotate", pause_s=0.0),
            Step(0, "abort", faults=(Fault(Kind.UNREACHABLE, 59, changes=False),)),
        ),
    ),
    "rotate in Vault bound an API key to a successor that abort had destroyed, and left it without a word": Script(
        _NAME,
        "vault",
        ("enroll",),
        (
            Step(0, "rotate", faults=turn(5), pause_s=0.0),
            Step(1, "rotate", faults=(Fault(Kind.UNREACHABLE, 2),), pause_s=0.0),
            Step(1, "abort", faults=(Fault(Kind.LATE, 6, seconds=1.5),), pause_s=0.0),
        ),
    ),
    "generate destroyed what had come late, whose API key Kalshi didn't list yet and deleted later": life(
        "vault",
        (),
        Step(0, "generate", faults=(Fault(Kind.LATE, 3, seconds=0.1), Fault(Kind.EARLY, 5, seconds=1.5)), pause_s=0.0),
        lag_s=1.5,
    ),
    "generate in Vault destroyed what had come late for another run, and then deleted its API key": Script(
        _NAME,
        "vault",
        (),
        (
            Step(0, "generate", faults=(*turn(3), Fault(Kind.LOSE_REQUEST, 4))),
            Step(1, "generate", faults=(Fault(Kind.LATE, 1, seconds=1.5),), pause_s=0.0),
        ),
    ),
    "enroll made a Transit key again that it had taken over, and that another machine had deleted": Script(
        _NAME,
        "vault",
        (),
        (
            Step(0, "enroll", faults=turn(3), pause_s=0.0),
            Step(1, "adopt", faults=(*turn(2), *after(4)), pause_s=0.0),
            Step(0, "revoke-destroy", pause_s=0.0),
        ),
    ),
    "generate in Vault went on with what had come late, and whose API key was to be deleted later still": life(
        "vault",
        (),
        Step(0, "generate", faults=(Fault(Kind.LATE, 3, seconds=0.1), Fault(Kind.LATE, 5, seconds=1.5)), pause_s=0.0),
        Step(0, "generate", pause_s=0.0),
        lag_s=1.5,
    ),
    **{
        f"generate deleted an API key in Vault that another machine had bound ({what})": Script(
            _NAME,
            "vault",
            (),
            (
                Step(0, "generate", faults=(Fault(Kind.TURN, 23, changes=False), fault), pause_s=0.0),
                Step(1, "generate", pause_s=0.0),
            ),
        )
        for what, fault in (("not bound", Fault(Kind.UNREACHABLE, 4)), ("late", Fault(Kind.LATE, 3, seconds=0.1)))
    },
    "generate was killed before it had put the public half in again that another machine had removed": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=turn(1)),
            Step(1, "generate", faults=(*turn(5), *before(6))),
            Step(0, "generate"),
        ),
    ),
    "enroll registered a pair that another machine had bound and was destroying": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "enroll", faults=turn(4)),
            Step(1, "enroll", faults=turn(3)),
            Step(0, "revoke-destroy", faults=turn(3), pause_s=0.0),
        ),
    ),
    **{
        f"enroll said that a pair in {store} was registered which another machine was destroying ({destroy})": Script(
            _NAME,
            store,
            (),
            (
                Step(0, "enroll", faults=turn(post), pause_s=0.0),
                Step(1, "enroll", pause_s=0.0),
                Step(1, "revoke-destroy", faults=turn(destroy), pause_s=0.0),
            ),
        )
        for store, post, destroy in (("token", 7, 3), ("kms", 4, 2), ("vault", 5, 3), ("vault", 5, 4), ("vault", 5, 5))
    },
    **{
        f"rotate in KMS took a name that an abort on another machine had given back ({first}, {second})": Script(
            _NAME,
            "kms",
            ("enroll",),
            (
                Step(0, "rotate", faults=(*turn(first), *killed), pause_s=0.0),
                Step(1, "abort", faults=turn(second), pause_s=0.0),
            ),
        )
        for first, second, killed in (
            *((8, second, after(8)) for second in (4, 5, 6, 7, 8)),
            *((9, second, ()) for second in (6, 7, 8)),
        )
    },
    "enroll --offline showed a pair that another machine was destroying": Script(
        _NAME,
        "kms",
        (),
        (
            Step(0, "enroll", faults=(Fault(Kind.LOSE_REQUEST, 5), *turn(2))),
            Step(1, "adopt", faults=turn(1)),
            Step(0, "revoke-destroy", faults=turn(5), pause_s=0.0),
        ),
    ),
    **{
        f"revoke destroyed in {store} what {command} had made before it was listed, and Kalshi deleted it later": life(
            store,
            (),
            Step(0, command, faults=(Fault(Kind.KILL_AFTER, at, changes=False),)),
            Step(0, "revoke-destroy", faults=(Fault(Kind.EARLY, 1, seconds=1.5),), pause_s=0.0),
            lag_s=0.4,
        )
        for store, command, at in (
            ("token", "enroll", 56),
            ("kms", "enroll", 34),
            ("vault", "enroll", 34),
            ("vault", "generate", 25),
        )
    },
    "adopt said that a name has an API key, and a revoke's change of the name in Vault had come late": life(
        "vault",
        ("enroll",),
        Step(0, "revoke-destroy", faults=(Fault(Kind.LATE, 1, seconds=0.1),)),
        Step(0, "adopt", pause_s=0.0),
        bootstrap=False,
    ),
    "generate in Vault went on with an API key that it had deleted, whose private half had come late": life(
        "vault",
        (),
        Step(0, "generate", faults=(Fault(Kind.LATE, 3, seconds=0.1), *after(5))),
        Step(0, "generate", pause_s=0.0),
        lag_s=0.4,
    ),
    "generate went on with an API key whose deletion was under way": life(
        "kms",
        (),
        Step(0, "generate", faults=(Fault(Kind.KILL_BEFORE, 29, changes=False),)),
        Step(0, "revoke", faults=(Fault(Kind.LATE, 1, seconds=0.5),), pause_s=0.0),
        Step(0, "generate", pause_s=0.0),
    ),
    "reconcile --fix began to bind a pair in KMS that an interrupted revoke had given its further name": life(
        "kms",
        ("mint",),
        Step(0, "enroll", faults=(Fault(Kind.UNREACHABLE, 3),)),
        Step(0, "fix", faults=before(1)),
        Step(0, "revoke-destroy", faults=after(2)),
    ),
    "rotate was refused as long as its pair was registered twice, and wasn't run again then": Script(
        _NAME,
        "kms",
        ("mint",),
        (
            Step(0, "enroll", faults=(*turn(2), *before(3)), pause_s=0.0),
            Step(1, "enroll", pause_s=0.0),
            Step(1, "rotate", faults=after(1)),
        ),
    ),
    "a successor was begun for a key that revoke had destroyed, and its public object waits for a rotation": Script(
        _NAME, "token", ("enroll",), (Step(0, "rotate", faults=(*turn(1), *before(2))), Step(1, "revoke-destroy"))
    ),
    "generate left the public object of its mark where a rotation had begun meanwhile": life(
        "token",
        (),
        Step(0, "generate", faults=before(2)),
        Step(0, "enroll", pause_s=0.0),
        Step(0, "rotate", pause_s=0.0),
    ),
    "generate was killed whose public object another machine had removed, and there was no way on": Script(
        _NAME, "token", (), (Step(0, "generate", faults=(*turn(5), *before(6))), Step(1, "adopt"))
    ),
    **{
        f"two machines registered a pair in {store} in two environments, which one of them had just made": Script(
            _NAME,
            store,
            (),
            (Step(0, "enroll", environment="demo", faults=turn(first)), Step(1, "enroll", faults=second)),
        )
        for store, first, second in (("token", 5, ()), ("kms", 3, ()), ("vault", 4, turn(3)))
    },
    "enroll and adopt on two machines registered one pair in two environments": Script(
        _NAME,
        "token",
        (),
        (Step(0, "adopt", faults=(Fault(Kind.TURN, 30, changes=False),)), Step(1, "enroll", environment="demo")),
    ),
    **{
        f"Kalshi made a pair in {store} twice, and listed the second one before generate had ended": life(
            store, (), Step(0, "generate", faults=(Fault(Kind.TWICE, at, seconds=4.0),)), lag_s=1.5
        )
        for store, at in (("token", 3), ("kms", 3), ("vault", 2))
    },
    **{
        f"reconcile said generate in {store} where that chose none of two lost API keys": life(
            store, (), Step(0, "generate", faults=(Fault(Kind.TWICE, at, seconds=4.0), *before(at + 1)))
        )
        for store, at in (("token", 3), ("kms", 3), ("vault", 2))
    },
    "generate in KMS gave way, and took away the other run's mark of an API key that got lost": Script(
        _NAME, "kms", (), (Step(0, "generate", faults=turn(4)), Step(1, "generate", faults=after(4)))
    ),
    "rotate in KMS gave the name to a successor that abort had ended, and abort took the name away": Script(
        _NAME, "kms", ("enroll",), (Step(0, "rotate", faults=turn(8)), Step(1, "abort", faults=turn(8)))
    ),
    "revoke took Kalshi's slow list for a refusal, and removed the mark that proves the end": life(
        "vault", ("enroll",), Step(0, "revoke-destroy"), lag_s=6.0, bootstrap=False
    ),
    "revoke left the record of a successor that never got its Transit key": life(
        "vault", ("enroll",), Step(0, "rotate", faults=before(2)), Step(0, "revoke-destroy")
    ),
    "revoke left the record of a successor where its own deletion had no answer": life(
        "vault",
        ("enroll",),
        Step(0, "rotate", faults=after(2)),
        Step(0, "revoke-destroy", pause_s=0.0, faults=(Fault(Kind.UNREACHABLE, 7),)),
    ),
    "a rotation in another environment was in grace, and nothing led to its end": life(
        "token", (), Step(0, "generate", environment="demo"), Step(0, "rotate", environment="demo")
    ),
    "reconcile knew no way on from a successor whose name had been revoked while it was made": Script(
        _NAME,
        "token",
        ("enroll",),
        (Step(0, "rotate", faults=turn(2)), Step(1, "revoke-destroy", faults=before(5))),
    ),
    "revoke destroyed the mark of a generate whose API key nobody had ended": life(
        "kms", (), Step(0, "generate", faults=after(3)), Step(0, "revoke-destroy")
    ),
    "revoke of an adopted key ended the mark of a generate whose API key nobody had ended": life(
        "token", (), Step(0, "generate", faults=after(3)), Step(0, "adopt"), Step(0, "revoke")
    ),
    "abort said that a name has an API key that had been revoked": life(
        "vault", ("enroll",), Step(0, "rotate", faults=after(2)), Step(0, "revoke"), Step(0, "abort")
    ),
    "revoke left the public object of a successor that never got its private one": life(
        "token", ("enroll",), Step(0, "rotate", faults=after(1)), Step(0, "revoke-destroy")
    ),
    "of two keys in KMS for one name, the one whose maker was killed stayed": life(
        "kms", (), Step(0, "adopt", faults=turn(1)), Step(1, "enroll", faults=before(2))
    ),
    "abort went back to a key whose deletion was still under way, and ended the other one": life(
        "vault",
        ("enroll", "rotate"),
        Step(0, "finish", faults=(Fault(Kind.LATE, 1, seconds=1.5),)),
        Step(0, "abort", pause_s=0.0),
    ),
    "revoke destroyed a pair whose API key Kalshi didn't list yet": life(
        "kms", (), Step(0, "generate", faults=after(4)), Step(0, "revoke-destroy", pause_s=0.0), lag_s=1.5
    ),
    "abort destroyed a successor whose API key Kalshi didn't list yet": life(
        "token", ("enroll",), Step(0, "rotate", faults=after(5)), Step(0, "abort", pause_s=0.0), lag_s=1.5
    ),
    "enroll registered a pair again whose API key Kalshi didn't list yet": life(
        "token", (), Step(0, "enroll", faults=after(5)), Step(0, "enroll", pause_s=0.0), lag_s=1.5
    ),
    "generate left the public object of its mark where the name was taken meanwhile": life(
        "token", (), Step(0, "generate", faults=before(2)), Step(0, "enroll"), Step(0, "generate")
    ),
    "generate left its mark in KMS where the name was taken meanwhile": life(
        "kms", (), Step(0, "generate", faults=after(1)), Step(0, "enroll"), Step(0, "generate")
    ),
    "reconcile said generate for a key that was revoked before the mark of its import had gone": life(
        "token", (), Step(0, "generate", faults=before(9)), Step(0, "revoke")
    ),
    "reconcile said enroll for what an interrupted generate had imported": life(
        "vault", (), Step(0, "generate", faults=after(3)), Step(0, "revoke")
    ),
    "reconcile named the new key of a name where the old one was to be revoked": life(
        "vault",
        ("generate",),
        Step(0, "revoke-destroy", faults=(Fault(Kind.UNREACHABLE, 2),)),
        Step(0, "generate"),
        bootstrap=False,
    ),
    "a rotation was stuck behind a successor whose deletion in KMS an abort had scheduled": life(
        "kms", ("enroll",), Step(0, "rotate", faults=before(3)), Step(0, "abort", faults=before(2))
    ),
    "reconcile said rotate where the key that was to be replaced was dead": life(
        "vault",
        ("enroll",),
        Step(0, "revoke-destroy", faults=after(1)),
        Step(0, "rotate", faults=(Fault(Kind.LOSE_ANSWER, 4),), pause_s=0.0),
        lag_s=1.5,
    ),
    **{
        f"revoke destroyed a minted key in {store} that enroll had registered in another environment": life(
            store, (), Step(0, "enroll", faults=after(at)), Step(0, "revoke-destroy", environment="demo")
        )
        for store, at in (("token", 7), ("kms", 4), ("vault", 5))
    },
    **{
        f"revoke destroyed a successor in {store} that was registered in another environment": life(
            store,
            ("enroll",),
            Step(0, "rotate", faults=after(at)),
            Step(0, "revoke-destroy", "prod+next", environment="demo"),
        )
        for store, at in (("token", 7), ("kms", 4), ("vault", 5))
    },
    **{
        f"finish and abort on two machines ended both keys in {store}": Script(
            _NAME,
            store,
            ("enroll", "rotate"),
            (
                Step(0, "finish", faults=(Fault(Kind.TURN, first, changes=False),)),
                Step(1, "abort", faults=(Fault(Kind.TURN, second, changes=False),)),
            ),
        )
        for store, first, second in (("vault", 1, 29), ("kms", 1, 49), ("token", 1, 49), ("vault", 26, 0))
    },
    "a key that finish had been about to mark, and that got no name back, couldn't be rotated": Script(
        _NAME, "token", ("enroll", "rotate"), (Step(0, "finish", faults=turn(2)), Step(1, "abort"))
    ),
    "abort destroyed a pair for which Kalshi had carried the registration out twice": life(
        "vault", ("enroll",), Step(0, "rotate", faults=(Fault(Kind.TWICE, 5, seconds=4.0),)), Step(0, "abort")
    ),
    "enroll made a second living key beside one that a killed revoke had left": life(
        "token", ("enroll",), Step(0, "revoke-destroy", faults=after(2)), Step(0, "enroll"), bootstrap=False
    ),
    **{
        f"a generate ended what one on another machine had put into {store} ({first}, {second})": Script(
            _NAME,
            store,
            (),
            (Step(0, "generate", faults=turn(first)), Step(1, "generate", faults=turn(second))),
        )
        for store, first, second in (
            ("vault", 3, 1),
            ("vault", 3, 2),
            ("vault", 3, 3),
            ("kms", 4, 1),
            ("kms", 4, 2),
            ("token", 4, 5),
            ("token", 5, 5),
        )
    },
    "a generate left its private half without the public one, which another machine had removed": Script(
        _NAME, "token", (), (Step(0, "generate", faults=turn(5)), Step(1, "generate", faults=turn(7)))
    ),
    "generate went on with what a run that gave way had put in, and whose API key was dead": Script(
        _NAME,
        "token",
        (),
        (Step(0, "generate", faults=(*turn(3), *after(6))), Step(1, "generate", faults=turn(6))),
    ),
    "enroll removed the public half of a key that generate on another machine was putting in": Script(
        _NAME, "token", (), (Step(0, "generate", faults=turn(5)), Step(1, "enroll", faults=turn(1)))
    ),
    "abort destroyed a successor that rotate on another machine had registered since it was looked for": Script(
        _NAME,
        "token",
        ("enroll",),
        (Step(0, "rotate", faults=turn(3)), Step(1, "abort", faults=(Fault(Kind.TURN, 49, changes=False),))),
    ),
    "rotate and abort on two machines gave the name to both keys": Script(
        _NAME,
        "token",
        ("enroll",),
        (
            Step(0, "rotate", faults=turn(12)),
            Step(1, "abort", faults=(Fault(Kind.LOSE_REQUEST, 5),)),
        ),
    ),
    **{
        f"abort in {store} took a successor for a remainder that rotate on another machine was making": Script(
            _NAME, store, ("enroll",), (Step(0, "rotate", faults=turn(2)), Step(1, "abort", faults=turn(1)))
        )
        for store in ("token", "kms", "vault")
    },
    "finish marked the old key behind the back of an abort that was killed, and there was no way on": Script(
        _NAME,
        "token",
        ("enroll", "rotate"),
        (Step(0, "finish", faults=turn(1)), Step(1, "abort", faults=(*turn(5), *after(6)))),
    ),
    "finish asked a key in KMS for its public half whose deletion was scheduled": life(
        "kms", ("enroll", "rotate"), Step(0, "finish", faults=after(5)), Step(0, "abort")
    ),
    "abort ended the only key of a name, which had got a further alias late": life(
        "kms",
        ("enroll", "rotate"),
        Step(0, "abort", faults=(Fault(Kind.LATE, 2, seconds=0.5),)),
        Step(0, "rotate", pause_s=0.0),
        Step(0, "abort"),
    ),
    "reconcile said finish where only the old key of a rotation still lived": Script(
        _NAME, "vault", ("enroll", "rotate"), (Step(0, "abort"),), yesterday=0
    ),
    "generate took a name that a killed rotation was handing over": life(
        "token",
        (),
        Step(0, "generate", faults=after(5)),
        Step(0, "rotate", faults=after(12)),
        Step(0, "generate"),
    ),
    **{
        f"abort didn't say that finish had begun, where {command} was killed between two aliases": life(
            "kms", ("enroll", "rotate"), Step(0, command, faults=before(2)), Step(0, "abort")
        )
        for command in ("finish", "rotate")
    },
    "rotate replaced a key whose pair Kalshi had registered twice": life(
        "vault",
        (),
        Step(0, "enroll", faults=(Fault(Kind.TWICE, 21, changes=False, seconds=4.0),)),
        Step(0, "rotate"),
    ),
    **{
        f"revoke destroyed a pair in {store} whose registration was carried out {seconds:g} s late": life(
            store,
            ("mint",),
            Step(0, "enroll", faults=(Fault(Kind.LATE, at, seconds=seconds),)),
            Step(0, "revoke-destroy", pause_s=0.0),
            lag_s=1.5,
        )
        for store, at, seconds in (("kms", 2, 1.5), ("token", 3, 8.0), ("vault", 2, 8.0))
    },
    "abort destroyed a successor whose registration was carried out 8 s late": life(
        "vault",
        ("enroll",),
        Step(0, "rotate", faults=(Fault(Kind.LATE, 5, seconds=8.0),)),
        Step(0, "abort", pause_s=0.0),
    ),
    **{
        f"revoke destroyed a pair in {store} that enroll on another machine registered": Script(
            _NAME, store, ("mint",), (Step(0, "revoke-destroy", faults=turn(at)), Step(1, "enroll"))
        )
        for store, at in (("token", 2), ("kms", 1), ("vault", 2))
    },
    **{
        f"enroll registered a pair in {store} that revoke on another machine was about to destroy": Script(
            _NAME, store, ("mint",), (Step(0, "enroll", faults=turn(1)), Step(1, "revoke-destroy", faults=turn(at)))
        )
        for store, at in (("token", 4), ("kms", 4))
    },
    "enroll registered a pair in vault that revoke on another machine was about to destroy": Script(
        _NAME,
        "vault",
        (),
        (
            Step(0, "enroll", faults=before(4)),
            Step(0, "enroll", faults=turn(1)),
            Step(1, "revoke-destroy", faults=turn(3)),
        ),
    ),
    **{
        f"abort in {store} destroyed a successor that rotate on another machine went on to register": Script(
            _NAME, store, ("enroll",), (Step(0, "rotate", faults=turn(first)), Step(1, "abort", faults=turn(at)))
        )
        for store, first, at in (("token", 4, 4), ("kms", 3, 4), ("vault", 4, 3))
    },
    "abort in Vault left a successor whose record went while rotate on another machine made it": Script(
        _NAME, "vault", ("enroll",), (Step(0, "rotate", faults=turn(2)), Step(1, "abort", faults=turn(2)))
    ),
    "enroll was killed before it gave way, and the token had two keys of a name": Script(
        _NAME, "token", (), (Step(0, "enroll", faults=(*turn(1), *before(4))), Step(1, "enroll"))
    ),
    "rotate was killed before it gave way, and the token had two successors of a name": Script(
        _NAME,
        "token",
        ("enroll",),
        (Step(0, "rotate", faults=(*turn(1), *before(4))), Step(1, "rotate", faults=after(5))),
    ),
    "generate in Vault gave way and couldn't delete its API key, and its private half had no entry": Script(
        _NAME,
        "vault",
        (),
        (Step(0, "generate", faults=(*turn(3), Fault(Kind.UNREACHABLE, 5))), Step(1, "generate")),
    ),
    **{
        f"generate in {store} gave way and was killed before its private half had gone": Script(
            _NAME, store, (), (Step(0, "generate", faults=(*turn(first), *before(at))), Step(1, "generate"))
        )
        for store, first, at in (("token", 5, 9), ("vault", 3, 5))
    },
    "two machines registered one pair in two environments": Script(
        _NAME,
        "kms",
        (),
        (Step(0, "enroll", environment="demo", faults=turn(2)), Step(1, "enroll", faults=turn(3))),
    ),
    "enroll made a second living key beside the one that a killed generate had asked for": life(
        "token", (), Step(0, "generate", faults=after(3)), Step(0, "enroll", pause_s=0.0), lag_s=0.4
    ),
    "rotate signed its request anew which had been held up, and registered a pair that abort had destroyed": Script(
        _NAME,
        "vault",
        ("enroll",),
        (
            Step(0, "rotate", faults=(Fault(Kind.LOSE_REQUEST, 4),)),
            Step(1, "abort", faults=turn(5)),
            Step(0, "rotate", faults=turn(2), pause_s=60.0),
        ),
    ),
    "reconcile said rotate where revoke had begun to delete the key that was to be replaced in KMS": Script(
        _NAME,
        "kms",
        ("enroll", "rotate"),
        (
            Step(0, "finish", pause_s=0.0),
            Step(1, "revoke-destroy", faults=before(3), pause_s=0.0),
            Step(0, "rotate", faults=(Fault(Kind.LATE, 2, seconds=1.5),), pause_s=60.0),
        ),
        machines=1,
        lag_s=1.5,
    ),
    "reconcile said rotate where a finish had marked a key that an abort had given its name back": Script(
        _NAME,
        "token",
        ("enroll", "rotate"),
        (
            Step(0, "abort", faults=(Fault(Kind.TURN, 17, changes=False),), pause_s=0.0),
            Step(1, "finish", faults=turn(1), pause_s=0.0),
            Step(0, "rotate", faults=after(3)),
        ),
    ),
    **{
        f"rotate bound a successor whose Transit key an abort had deleted ({at})": Script(
            _NAME,
            "vault",
            ("enroll",),
            (Step(0, "rotate", faults=(Fault(Kind.TURN, at, changes=False),)), Step(1, "abort", faults=after(5))),
        )
        for at in (57, 58, 59)
    },
    "abort in Vault dropped the record of a successor whose Transit key was still on its way": Script(
        _NAME, "vault", ("enroll",), (Step(0, "rotate", faults=(*turn(2), *before(4))), Step(1, "abort"))
    ),
    "revoke in Vault dropped the record of a key whose Transit key was still on its way": life(
        "vault",
        (),
        Step(0, "enroll", faults=(Fault(Kind.LATE, 2, seconds=0.5),)),
        Step(0, "revoke-destroy", pause_s=0.0),
    ),
    "finish in Vault left the record of a successor that rotate on another machine never made": Script(
        _NAME,
        "vault",
        ("enroll",),
        (
            Step(0, "rotate", faults=(Fault(Kind.LOSE_REQUEST, 2), Fault(Kind.TURN, 30, changes=False))),
            Step(1, "rotate"),
        ),
    ),
    "rotate took a successor whose deletion in Vault an abort had begun": life(
        "vault",
        ("enroll",),
        Step(0, "rotate", faults=after(2)),
        Step(0, "abort", faults=(Fault(Kind.LOSE_REQUEST, 3),)),
        Step(0, "rotate"),
    ),
    "enroll said that its API key was gone, and Kalshi didn't know it yet": Script(
        _NAME, "token", ("mint",), (Step(0, "enroll", faults=turn(2)), Step(1, "enroll")), lag_s=1.5
    ),
    **{
        f"revoke destroyed a pair in {store} that had a further API key which Kalshi didn't list yet": Script(
            _NAME,
            store,
            ("mint",),
            (
                Step(0, "enroll", faults=(*turn(at), *after(post))),
                Step(1, "enroll", pause_s=0.0),
                Step(0, "revoke-destroy", pause_s=0.0),
            ),
            lag_s=1.5,
        )
        for store, at, post in (("token", 2, 3), ("kms", 1, 2), ("vault", 1, 1))
    },
    "reconcile said rotate where the successor was dead in the midst of a handover": life(
        "token", ("enroll",), Step(0, "rotate", faults=before(12)), Step(0, "abort"), yesterday=1
    ),
    "a key in KMS for a successor came after the name had been revoked": life(
        "kms",
        ("enroll",),
        Step(0, "rotate", faults=(Fault(Kind.LATE, 1, seconds=0.5),)),
        Step(0, "revoke-destroy", pause_s=0.0),
    ),
    "reconcile said generate where Kalshi had made two pairs that got lost": life(
        "token", (), Step(0, "generate", faults=(*before(4), Fault(Kind.TWICE, 3, seconds=4.0)))
    ),
    **{
        f"rotate wrote over the API key id of a successor that was getting its name ({turns})": Script(
            _NAME,
            "token",
            ("enroll",),
            (Step(0, "rotate", faults=turn(turns)), Step(1, command, faults=after(at))),
        )
        for turns, command, at in ((3, "finish", 8), (5, "rotate", 7))
    },
    "reconcile said rotate before it named the API key that stood in its way": Script(
        _NAME,
        "token",
        ("mint",),
        (
            Step(0, "enroll", faults=(*turn(1), *after(3)), pause_s=0.0),
            Step(1, "enroll", pause_s=0.0),
            Step(1, "rotate", faults=after(5), pause_s=0.0),
        ),
    ),
    "enroll registered a pair in KMS that another machine had registered meanwhile": Script(
        _NAME,
        "kms",
        (),
        (
            Step(0, "enroll", faults=(Fault(Kind.TURN, 24, changes=False),), pause_s=0.0),
            Step(1, "enroll", pause_s=0.0),
            Step(1, "rotate", faults=(Fault(Kind.UNREACHABLE, 8),), pause_s=0.0),
        ),
        lag_s=0.4,
    ),
    "enroll was killed whose public object another machine had removed, and the name led to two keys": Script(
        _NAME, "token", (), (Step(0, "enroll", faults=(*turn(2), *after(2))), Step(1, "enroll"))
    ),
    "rotate was killed whose public object another machine had removed, and there was no way on": Script(
        _NAME, "token", ("enroll",), (Step(0, "rotate", faults=(*turn(2), *after(2))), Step(1, "abort"))
    ),
    **{
        f"generate in Vault gave way and was killed while its private half was deleted ({at})": Script(
            _NAME, "vault", (), (Step(0, "generate", faults=(*turn(3), *before(at))), Step(1, "generate"))
        )
        for at in (9, 10)
    },
    "reconcile said finish where both keys of a rotation were dead": Script(
        _NAME,
        "vault",
        ("enroll", "rotate"),
        (Step(0, "abort", faults=turn(6)), Step(1, "revoke-destroy")),
        yesterday=0,
    ),
    "rotate in KMS was killed while it gave way, and there were three keys of a name": Script(
        _NAME,
        "kms",
        ("enroll",),
        (Step(0, "rotate", faults=(Fault(Kind.TURN, 39, changes=False), *before(4))), Step(1, "rotate")),
    ),
    "revoke said that a pair was never registered whose registration was under way": life(
        "kms",
        (),
        Step(0, "enroll", faults=(Fault(Kind.LATE, 4, seconds=1.5),)),
        Step(0, "revoke", pause_s=0.0),
        lag_s=1.5,
    ),
    "revoke ended somebody else's API key in another environment than an interrupted generate's": Script(
        _NAME,
        "token",
        (),
        (Step(0, "generate", faults=after(2)), Step(0, "revoke", environment="demo")),
        machines=1,
        bystander=True,
    ),
    "enroll wrote over the API key id of a pair that was replaced meanwhile, and finish was refused": Script(
        _NAME, "token", ("mint",), (Step(0, "enroll", faults=turn(1)), Step(1, "adopt"), Step(1, "rotate"))
    ),
    "the same, and abort was refused": Script(
        _NAME,
        "token",
        ("mint",),
        (Step(0, "enroll", faults=turn(1)), Step(1, "adopt"), Step(1, "rotate"), Step(0, "abort")),
    ),
    **{
        f"the same while the pair was replaced, and a killed rotate was refused ({at})": Script(
            _NAME,
            "token",
            (),
            (
                Step(0, "enroll", faults=(Fault(Kind.TURN, 45, changes=False),)),
                Step(1, "enroll"),
                Step(1, "rotate", faults=after(at)),
            ),
        )
        for at in (11, 12)
    },
    "enroll made a key of a name while a rotation handed it over, and there were three pairs": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "enroll", faults=(*turn(1), *before(3)), pause_s=0.0),
            Step(1, "generate", pause_s=0.0),
            Step(1, "rotate", faults=turn(8)),
        ),
    ),
    "reconcile named a dead key by a name that led to two keys": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=(*turn(4), *before(6))),
            Step(1, "generate", faults=(Fault(Kind.TURN, 64, changes=False),), pause_s=60.0),
        ),
    ),
    "generate was killed before it gave way, and the token had two keys of a name": Script(
        _NAME, "token", (), (Step(0, "generate", faults=(*turn(5), *before(8))), Step(1, "generate"))
    ),
    **{
        f"generate in {store} asked Kalshi for a pair after another machine had ended its mark ({at})": Script(
            _NAME,
            store,
            (),
            (Step(0, "generate", faults=(Fault(Kind.TURN, at, changes=False), *after(post))), Step(1, "generate")),
        )
        for store, at, post in (("token", 38, 3), ("token", 39, 3), ("kms", 13, 3), ("kms", 14, 3), ("vault", 13, 2))
    },
    "generate in Vault imported its key after another machine had taken the import over, and was killed": Script(
        _NAME,
        "vault",
        (),
        (Step(0, "generate", faults=(*turn(3), *after(3))), Step(1, "generate")),
    ),
    **{
        f"rotate marked the old key for its end while another machine's abort gave the name back to it ({how})": Script(
            _NAME,
            "token",
            ("enroll",),
            (Step(0, "rotate"), Step(0, "rotate", faults=(*turn(2), *killed)), Step(1, "abort")),
        )
        for how, killed in (("killed", (Fault(Kind.KILL_AFTER, 60, changes=False),)), ("refused", ()))
    },
    "rotate --finish gave a further name to a key in KMS whose deletion another machine's revoke had scheduled": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "rotate", faults=turn(1), pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.LATE, 33, changes=False, seconds=1.5),), pause_s=0.0),
        ),
        bystander=True,
    ),
    "two enrolls in Vault made one Transit key, and the slower one made it again after it had been destroyed": Script(
        _NAME,
        "vault",
        (),
        (
            Step(0, "enroll", faults=(*turn(2), *after(2)), pause_s=0.0),
            Step(1, "adopt", pause_s=0.0),
            Step(1, "revoke-destroy"),
        ),
    ),
    "generate in Vault named a key that a revoke on another machine had destroyed, and was killed": Script(
        _NAME,
        "vault",
        (),
        (
            Step(1, "revoke-destroy", pause_s=0.0),
            Step(0, "generate", faults=(*turn(4), *before(7))),
        ),
    ),
    "rotate wrote that a successor is new which another machine had registered, and enroll did so in demo": Script(
        _NAME,
        "token",
        ("enroll",),
        (Step(0, "rotate", faults=turn(3)), Step(1, "finish", environment="demo"), Step(1, "finish", pause_s=60.0)),
    ),
    "the key of a killed generate in Vault was destroyed by a mend, and not by the revoke that had begun its end": life(
        "vault",
        (),
        Step(0, "generate", faults=after(3), pause_s=0.0),
        Step(0, "revoke-destroy", faults=after(1)),
    ),
    "two generates began at once in a token, and the later one removed the mark of the one that was killed": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=(Fault(Kind.TURN, 28, changes=False),), pause_s=0.0),
            Step(1, "generate", faults=after(4), pause_s=0.0),
        ),
    ),
    "enroll bound a key in Vault that a revoke on another machine was about to delete": Script(
        _NAME,
        "vault",
        (),
        (
            Step(0, "enroll", faults=turn(5), pause_s=0.0),
            Step(1, "enroll", pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.TURN, 36, changes=False),), pause_s=0.0),
        ),
        bystander=True,
    ),
    "generate took a successor for the key that it had put in, and destroyed it": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=turn(4), pause_s=0.0),
            Step(1, "generate", pause_s=0.0),
            Step(1, "rotate", faults=after(11), pause_s=0.0),
        ),
    ),
    "revoke gave a name back while a rotation handed it over": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=(*after(9), *turn(4)), pause_s=0.0),
            Step(1, "generate", pause_s=0.0),
            Step(0, "rotate", faults=after(11), pause_s=0.0),
            Step(0, "revoke", pause_s=5.0),
        ),
    ),
    "the only key's deletion was scheduled in KMS, and reconcile ended with its error": life(
        "kms",
        ("enroll",),
        Step(0, "revoke-destroy", faults=(Fault(Kind.LATE, 5, seconds=0.5),), pause_s=0.0),
        Step(1, "revoke", pause_s=0.0),
        bootstrap=False,
    ),
    "abort said that it was done while the old key's deletion was under way": life(
        "vault",
        ("enroll",),
        Step(0, "revoke", faults=(Fault(Kind.KILL_AFTER, 18, changes=False),), pause_s=0.0),
        Step(0, "rotate", faults=before(5), pause_s=0.0),
        Step(0, "abort", pause_s=0.0),
        lag_s=1.5,
    ),
    "abort said that it was done right after a revoke without an answer, where the successor had no name yet": life(
        "vault",
        ("enroll",),
        Step(0, "rotate", faults=after(2), pause_s=0.0),
        Step(0, "revoke", faults=(Fault(Kind.LOSE_ANSWER, 1),), pause_s=5.0),
        Step(0, "abort", pause_s=0.0),
        lag_s=0.4,
    ),
    "an abort had begun to end the successor, and then only that lived": Script(
        _NAME,
        "token",
        ("enroll", "rotate"),
        (Step(0, "abort", faults=(*after(3), *turn(2)), pause_s=0.0), Step(1, "finish", pause_s=0.0)),
        yesterday=1,
    ),
    "a rotation was stuck beside a pair that a killed enroll had made for another environment": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "enroll", environment="demo", faults=(*before(4), *turn(1)), pause_s=0.0),
            Step(1, "adopt", pause_s=0.0),
            Step(1, "rotate", faults=(Fault(Kind.TURN, 30, changes=False),), pause_s=0.0),
        ),
    ),
    "a key in Vault came late, after the store had come back with what it held before": Script(
        _NAME,
        "vault",
        ("enroll",),
        (Step(0, "rotate", faults=(Fault(Kind.LATE, 2, seconds=0.5),)),),
        yesterday=0,
    ),
    **{
        f"generate imported its key while another machine's, of the same name, was being rotated ({how})": Script(
            _NAME,
            "token",
            (),
            (
                Step(0, "generate", faults=(*turn(5), *killed), pause_s=0.0),
                Step(1, "generate"),
                Step(1, "rotate", faults=after(11), pause_s=60.0),
            ),
        )
        for how, killed in (("refused", ()), *((f"killed {at}", before(at)) for at in (6, 7, 8, 9)))
    },
    "rotate in KMS was killed in the handover from a key whose deletion revoke had scheduled": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "revoke-destroy", faults=(*turn(1), Fault(Kind.LATE, 2, seconds=0.1)), pause_s=0.0),
            Step(1, "rotate", faults=after(8)),
        ),
    ),
    "enroll was killed on two machines before either gave way, and the token had two keys of a name": Script(
        _NAME,
        "token",
        (),
        (Step(0, "enroll", faults=(*turn(1), *before(3))), Step(1, "enroll", faults=after(2))),
    ),
    "generate was killed whose public object another machine's had removed, which was killed, too": Script(
        _NAME,
        "token",
        (),
        (Step(0, "generate", faults=(*turn(5), *before(6))), Step(1, "generate", faults=before(8))),
    ),
    "generate gave way, and removed the mark of an earlier one whose API key got lost": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=(*turn(5), *before(8)), pause_s=0.0),
            Step(1, "generate", faults=before(8)),
            Step(1, "generate", faults=turn(2)),
        ),
    ),
    "revoke removed the mark of another machine's generate, whose API key got lost": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=(*turn(5), *before(8)), pause_s=0.0),
            Step(1, "generate", faults=before(8)),
            Step(0, "revoke-destroy", pause_s=60.0),
        ),
    ),
    "abort in KMS was killed while another machine began to rotate, and there were three pairs": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "rotate", faults=turn(1), pause_s=0.0),
            Step(1, "rotate", pause_s=0.0),
            Step(1, "abort", faults=(Fault(Kind.KILL_BEFORE, 54, changes=False),), pause_s=60.0),
        ),
    ),
    "abort in a token was killed while another machine rotated, and there were three pairs": Script(
        _NAME,
        "token",
        ("enroll",),
        (
            Step(0, "rotate", faults=(Fault(Kind.TURN, 50, changes=False),), pause_s=0.0),
            Step(1, "rotate", pause_s=60.0),
            Step(1, "abort", faults=before(7), pause_s=0.0),
        ),
    ),
    **{
        f"{command} was killed whose public object another machine had removed, and hid the key of a handover": Script(
            _NAME,
            "token",
            (),
            (
                Step(0, command, faults=(*turn(2), *killed), pause_s=0.0),
                Step(1, "enroll", pause_s=0.0),
                Step(1, "rotate", faults=faults),
            ),
        )
        for command, killed, faults in (
            ("enroll", (Fault(Kind.KILL_BEFORE, 36, changes=False),), after(12)),
            ("adopt", before(3), (Fault(Kind.TURN, 53, changes=False),)),
        )
    },
    "KMS scheduled a deletion late, when an enroll had registered the pair and was taking that back": Script(
        _NAME,
        "kms",
        ("mint",),
        (
            Step(0, "enroll", faults=turn(2), pause_s=0.0),
            Step(1, "enroll", pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.LATE, 2, seconds=0.1),), pause_s=0.0),
        ),
        lag_s=0.4,
    ),
    "revoke in KMS took the mark that another machine's generate had made meanwhile": life(
        "kms",
        ("generate",),
        Step(0, "revoke-destroy", pause_s=0.0),
        Step(1, "generate", faults=(Fault(Kind.KILL_BEFORE, 32, changes=False),), pause_s=0.0),
        Step(0, "generate", faults=(Fault(Kind.UNREACHABLE, 3), *before(5)), pause_s=60.0),
        Step(0, "revoke-destroy", faults=(*before(4), Fault(Kind.TURN, 13, changes=False))),
    ),
    "rotate in KMS was killed while it handed over the name of a key whose deletion was scheduled then": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "revoke-destroy", faults=(*turn(1), Fault(Kind.LATE, 2, seconds=0.1)), pause_s=0.0),
            Step(1, "rotate", faults=before(8)),
        ),
    ),
    "rotate in KMS made a successor late, beside the mark of a generate": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "rotate", faults=turn(1), pause_s=0.0),
            Step(1, "revoke-destroy"),
            Step(1, "generate", faults=(Fault(Kind.LOSE_REQUEST, 17, changes=False),), pause_s=60.0),
        ),
    ),
    **{
        f"rotate in a token was killed beside a revoke that had removed its public object ({destroy})": Script(
            _NAME,
            "token",
            ("enroll",),
            (
                Step(0, "rotate", faults=(*turn(2), *before(3)), pause_s=0.0),
                Step(1, "revoke-destroy", faults=turn(destroy), pause_s=0.0),
            ),
        )
        for destroy in (3, 5)
    },
    **{
        f"generate was killed on two machines, and two keys of a name kept a rotation from going on ({killed})": Script(
            _NAME,
            "token",
            (),
            (
                Step(0, "generate", faults=(*turn(5), *before(killed)), pause_s=0.0),
                Step(1, "generate", faults=before(10)),
                Step(1, "rotate", faults=after(2)),
            ),
        )
        for killed in (7, 8)
    },
    **{
        f"half a key that generate had imported stood in the way of a rotation ({how})": Script(
            _NAME,
            "token",
            (),
            (
                Step(0, "generate", faults=(*turn(5), *before(6)), pause_s=0.0),
                Step(1, "generate", faults=killed),
                Step(1, "rotate", faults=turn(at)),
                Step(0, command),
            ),
        )
        for how, killed, at, command in (
            ("handed over", after(9), 3, "generate"),
            ("begun", (), 1, "revoke-destroy"),
            ("settled", after(9), 1, "revoke-destroy"),
        )
    },
    **{
        f"rotate was killed right when it gave a name that an abort was giving back ({killed[0]}, {abort})": Script(
            _NAME,
            "token",
            ("enroll",),
            (
                Step(0, "rotate", faults=(*turn(12), *killed), pause_s=0.0),
                Step(1, "abort", faults=turn(abort), pause_s=0.0),
            ),
        )
        for killed, abort in ((before(14), 5), (before(15), 7), (after(12), 4), (after(12), 7))
    },
    **{
        f"rotate --finish, run again, and an --abort that was held up ended both keys in {store}": Script(
            _NAME,
            store,
            ("enroll", "rotate"),
            (
                Step(0, "abort", faults=(*turn(1), *turn(delete)), pause_s=0.0),
                Step(1, "finish", faults=turn(1), pause_s=0.0),
                Step(1, "finish", pause_s=0.0),
            ),
        )
        for store, delete in (("token", 5), ("kms", 7))
    },
    "rotate gave a public object another label after a killed revoke had destroyed its private one": Script(
        _NAME,
        "token",
        ("enroll",),
        (
            Step(0, "revoke-destroy", faults=(*turn(1), *before(4)), pause_s=0.0),
            Step(1, "rotate", faults=turn(10), pause_s=0.0),
        ),
    ),
    "revoke took half a key that generate had imported for a whole one": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=(*turn(5), *before(6)), pause_s=0.0),
            Step(1, "generate", faults=after(9)),
            Step(0, "revoke-destroy"),
        ),
    ),
    "rotate in KMS made a successor late, and Kalshi refused its name to the next key": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "rotate", faults=(*turn(1), Fault(Kind.LATE, 5, seconds=1.5)), pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.TURN, 30, changes=False),), pause_s=0.0),
            Step(1, "enroll", pause_s=60.0),
        ),
        unique=True,
    ),
    **{
        f"{commands[-1]} in KMS was stopped by a key of another name, whose deletion was scheduled": life(
            "kms",
            (),
            Step(0, "enroll", "bot", pause_s=0.0),
            Step(0, "revoke-destroy", "bot", faults=before(3)),
            *(Step(0, command) for command in commands),
        )
        for commands in (("enroll",), ("generate", "rotate"))
    },
    **{
        f"enroll left an API key of a destroyed pair in {store}, since the name had a further one": Script(
            _NAME,
            store,
            ("mint",),
            (
                Step(0, "enroll", faults=turn(post), pause_s=0.0),
                Step(1, "enroll", pause_s=0.0),
                Step(1, "revoke-destroy", pause_s=0.0),
                Step(1, "generate", pause_s=0.0),
            ),
        )
        for store, post in (("token", 3), ("kms", 2), ("vault", 1))
    },
    "abort in KMS took the last alias of a key to which rotate had given the name again": Script(
        _NAME,
        "kms",
        ("enroll", "rotate"),
        (
            Step(0, "finish", faults=(Fault(Kind.TURN, 41, changes=False),), pause_s=0.0),
            Step(1, "abort", faults=turn(3), pause_s=0.0),
            Step(0, "rotate", pause_s=0.0),
        ),
    ),
    "enroll in a token left the public half of a mark, as yesterday's store had it": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=turn(2), pause_s=0.0),
            Step(1, "enroll", faults=(Fault(Kind.TURN, 15, changes=False),), pause_s=0.0),
        ),
        unique=True,
        yesterday=1,
    ),
    **{
        f"rotate in KMS took the name from a key that {command} had made meanwhile ({killed})": Script(
            _NAME,
            "kms",
            ("enroll",),
            (
                Step(0, "rotate", faults=(Fault(Kind.TURN, 41, changes=False), *turn(8)), pause_s=0.0),
                Step(1, "revoke-destroy", faults=turn(1), pause_s=0.0),
                Step(1, command, faults=before(killed) if killed else (), pause_s=0.0),
            ),
        )
        for command, killed in (("enroll", 0), ("enroll", 5), ("adopt", 0))
    },
    "generate gave way, couldn't delete what Kalshi had made for it, and didn't say so": Script(
        _NAME,
        "vault",
        (),
        (
            Step(0, "generate", faults=(*turn(2), Fault(Kind.UNREACHABLE, 4)), pause_s=0.0),
            Step(1, "generate", faults=(Fault(Kind.KILL_AFTER, 15, changes=False),), pause_s=0.0),
        ),
        lag_s=1.5,
    ),
    "abort in KMS tagged a key with a name that finish had taken from it": Script(
        _NAME,
        "kms",
        ("enroll", "rotate"),
        (
            Step(0, "abort", faults=(*turn(1), *turn(4)), pause_s=0.0),
            Step(1, "finish", faults=turn(1), pause_s=0.0),
            Step(1, "finish", pause_s=0.0),
        ),
    ),
    **{
        f"{command} in KMS removed the alias of a key that another rotation had retired meanwhile": Script(
            _NAME,
            "kms",
            ("enroll", "rotate"),
            (
                Step(0, command, faults=(*turn(1), *turn(3)), pause_s=0.0),
                Step(1, "finish", faults=turn(1), pause_s=0.0),
                Step(1, "rotate", pause_s=0.0),
            ),
        )
        for command in ("finish", "rotate")
    },
    "enroll in a token took the public half of a key that another machine had registered meanwhile": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "enroll", faults=turn(2), pause_s=0.0),
            Step(1, "enroll", faults=(*turn(1), Fault(Kind.KILL_AFTER, 8, changes=False)), pause_s=0.0),
            Step(0, "finish", faults=(Fault(Kind.TURN, 69, changes=False),), pause_s=0.0),
        ),
    ),
    "revoke in KMS removed the alias of a key that another machine had made of the name meanwhile": Script(
        _NAME,
        "kms",
        ("enroll",),
        (
            Step(0, "revoke-destroy", faults=turn(3), pause_s=0.0),
            Step(1, "revoke-destroy"),
            Step(1, "adopt", pause_s=0.0),
        ),
    ),
    "revoke was killed, and the key that it had asked Kalshi with lost its API key id meanwhile": Script(
        _NAME,
        "token",
        ("enroll",),
        (
            Step(0, "enroll", "bot", faults=turn(3), pause_s=0.0),
            Step(1, "enroll", "bot", pause_s=0.0),
            Step(1, "revoke-destroy", faults=(Fault(Kind.KILL_AFTER, 49, changes=False),), pause_s=0.0),
        ),
        bootstrap=False,
    ),
    "abort and finish ended both keys, since a rotate had written over the mark of the one": Script(
        _NAME,
        "token",
        ("enroll",),
        (
            Step(0, "rotate", faults=turn(10), pause_s=0.0),
            Step(1, "rotate", pause_s=0.0),
            Step(0, "abort"),
            Step(1, "finish", faults=turn(3), pause_s=0.0),
        ),
    ),
    "abort was killed, and the name of a key that a killed generate had put in led to the one that was to end": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=before(6), pause_s=0.0),
            Step(0, "rotate", pause_s=0.0),
            Step(0, "abort", faults=after(5)),
        ),
    ),
    "reconcile said to revoke a name that a key of another environment has": Script(
        _NAME,
        "token",
        (),
        (
            Step(0, "generate", faults=turn(2), pause_s=0.0),
            Step(1, "enroll", environment="demo", faults=(*turn(3), *before(5)), pause_s=0.0),
            Step(1, "rotate", faults=after(1), pause_s=0.0),
        ),
    ),
    "enroll in a token left the public half of a successor, as yesterday's store had it": Script(
        _NAME,
        "token",
        ("mint",),
        (
            Step(0, "enroll", pause_s=0.0),
            Step(1, "enroll", "bot", faults=turn(7), pause_s=0.0),
            Step(0, "rotate", faults=turn(2), pause_s=60.0),
        ),
        machines=1,
        yesterday=1,
    ),
}


@pytest.mark.parametrize("found", FOUND)
def test_a_life_that_went_wrong_once_goes_right(found: str) -> None:
    with doubles():
        assert not Life(FOUND[found]).live().violation
