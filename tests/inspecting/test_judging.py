"""What reconcile finds, as a table of cases over pictures that were never taken; and what it never does."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.inspecting.findings import Bind
from hsm_keys.inspecting.reconcile import judge
from hsm_keys.inspecting.snapshot import Seen, Snapshot
from hsm_keys.kalshi.models import ApiKey
from hsm_keys.stores.condition import Condition, Usability

HSM, KMS = "pkcs11:token=kalshi", "awskms:///?region=us-east-1"
HERE, THERE = "prod", "demo"


DISABLED = Condition(Usability.UNUSABLE, "Disabled")
ENDING = Condition(Usability.ENDING, "PendingDeletion")
ARRIVING = Condition(Usability.ARRIVING, "PendingImport")


def key(
    name: str,
    bound: str | None = None,
    *signs_for: str,
    pair: str | None = None,
    store: str = HSM,
    stopped: Condition | None = None,
    environment: str | None = HERE,
    unknown: bool = False,
    passing: bool = False,
    left_over: bool = False,
) -> Seen:
    """Return a key; its pair is its own unless said otherwise."""
    return Seen(
        name,
        bound,
        f"store {store}",
        store,
        pair or f"{store}{name}",
        frozenset(signs_for),
        stopped,
        environment if bound else None,
        unknown,
        passing=passing,
        left_over=left_over,
    )


def good(name: str, bound: str, **more: Any) -> Seen:
    return key(name, bound, bound, **more)


def listed(*api_keys: tuple[str, str]) -> tuple[ApiKey, ...]:
    return tuple(ApiKey(api_key_id=api_key_id, name=name) for name, api_key_id in api_keys)


@dataclass(frozen=True)
class Case:
    """A picture, and what is to be found: code, key, API key id, the command's first words, and whether --fix helps."""

    title: str
    keys: tuple[Seen, ...]
    listed: tuple[ApiKey, ...]
    found: tuple[tuple[str, str, str | None, str, bool], ...]


PROD = good("prod", "A")
KALSHI_HAS_A = listed(("prod", "A"))

CASES = [
    Case("nothing at all", (), (), ()),
    Case("all as it should be", (PROD,), KALSHI_HAS_A, ()),
    Case(
        "a revoke was killed between two names of a pair that isn't bound: the pair is its business",
        (key("prod", None, "A", pair="P", store=KMS), key("prod+ending", None, "A", pair="P", store=KMS)),
        KALSHI_HAS_A,
        (("revoke-interrupted", "prod+ending", None, "revoke prod+ending --destroy", False),),
    ),
    Case("the same pair in two Regions", (PROD, good("prod", "A", pair=PROD.pair, store=KMS)), KALSHI_HAS_A, ()),
    Case("an API key that Kalshi takes and doesn't list", (PROD,), (), ()),
    Case("minted", (key("new"),), (), (("not-registered", "new", None, "enroll --name new", False),)),
    Case(
        "an interrupted enroll",
        (key("prod", None, "A"),),
        KALSHI_HAS_A,
        (("not-bound", "prod", "A", "adopt prod --api-key-id A", True),),
    ),
    Case(
        "bound in one store, and not in the other",
        (PROD, key("prod", None, "A", pair=PROD.pair, store=KMS)),
        KALSHI_HAS_A,
        (("not-bound", "prod", "A", "adopt prod --api-key-id A", True),),
    ),
    Case("gone", (key("prod", "A", unknown=True),), (), (("gone", "prod", "A", "revoke prod --destroy", False),)),
    Case(
        "gone, and registered anew by hand",
        (key("prod", "A", "B"),),
        listed(("prod", "B")),
        (("wrong-id", "prod", "B", "adopt prod --api-key-id B", True),),
    ),
    Case(
        "bound to the id of another pair",
        (key("prod", "A"), key("other", None, "A")),
        KALSHI_HAS_A,
        (("refused", "prod", "A", "", False), ("not-bound", "other", "A", "adopt other --api-key-id A", True)),
    ),
    Case(
        "bound to an id whose pair is nowhere",
        (key("prod", "A"),),
        KALSHI_HAS_A,
        (("refused", "prod", "A", "", False), ("elsewhere", "prod", "A", "revoke A", False)),
    ),
    Case(
        "a PEM somewhere",
        (PROD,),
        listed(("prod", "A"), ("bot", "B")),
        (("elsewhere", "bot", "B", "revoke B", False),),
    ),
    Case(
        "a raced enroll that one run ended",
        (key("prod", "A", "A", "B"),),
        listed(("prod", "A"), ("prod", "B")),
        (("registered-twice", "prod", "B", "revoke B", False), ("same-name-at-kalshi", "prod", None, "", False)),
    ),
    Case(
        "a raced enroll that no run ended",
        (key("prod", None, "A", "B"),),
        listed(("prod", "A"), ("prod-2", "B")),
        (
            ("registered-twice", "prod", "B", "revoke B", False),
            ("not-bound", "prod", None, "adopt prod --api-key-id A", False),
        ),
    ),
    Case(
        "one pair, bound in two stores to two API keys",
        (key("prod", "B", "A", "B"), key("prod", "A", "A", "B", pair=key("prod").pair, store=KMS)),
        listed(("prod", "A"), ("other", "B")),
        (("registered-twice", "prod", "B", "revoke B", False),),
    ),
    Case(
        "two keys of one name in a token",
        (PROD, good("prod", "B", pair="another")),
        listed(("prod", "A"), ("prod-2", "B")),
        (("same-name-in-stores", "prod", None, "", False),),
    ),
    Case(
        "two keys of one name in a token, and one is gone",
        (PROD, key("prod", "B", pair="another", unknown=True)),
        KALSHI_HAS_A,
        (
            ("gone", "prod", "B", "revoke B --destroy", False),
            ("same-name-in-stores", "prod", None, "", False),
        ),
    ),
    Case(
        "two keys of one name in a token, of which one is gone, and a rotation, which is refused as long as that is so",
        (PROD, key("prod", "B", pair="another", unknown=True), key("prod+next")),
        KALSHI_HAS_A,
        (
            ("gone", "prod", "B", "revoke B --destroy", False),
            ("rotation-begun", "prod+next", None, "rotate prod", False),
            ("same-name-in-stores", "prod", None, "", False),
        ),
    ),
    Case(
        "half a key beside a successor that was to replace it",
        (key("prod", "B", stopped=DISABLED, left_over=True), key("prod+next", "C", "C")),
        listed(("prod", "C")),
        (
            ("cannot-sign", "prod", "B", "revoke prod --destroy", False),
            ("rotation-orphan", "prod+next", "C", "revoke prod+next --destroy", False),
        ),
    ),
    Case(
        "half a key beside a whole one of its name goes with the next command on the name",
        (PROD, key("prod", stopped=DISABLED, left_over=True)),
        KALSHI_HAS_A,
        (),
    ),
    Case(
        "one name in the HSM and in KMS",
        (PROD, good("prod", "B", store=KMS)),
        listed(("prod", "A"), ("prod", "B")),
        (
            ("same-name-at-kalshi", "prod", None, "", False),
            ("same-name-in-stores", "prod", None, "", False),
        ),
    ),
    Case(
        "a rotation: the successor is made",
        (PROD, key("prod+next")),
        KALSHI_HAS_A,
        (("rotation-begun", "prod+next", None, "rotate prod", False),),
    ),
    Case(
        "a rotation: the successor's registration got lost",
        (PROD, key("prod+next", None, "B")),
        listed(("prod", "A"), ("prod", "B")),
        (("rotation-begun", "prod+next", "B", "rotate prod", False),),
    ),
    Case(
        "a rotation: the successor is registered",
        (PROD, good("prod+next", "B")),
        listed(("prod", "A"), ("prod", "B")),
        (("rotation-registered", "prod+next", "B", "rotate prod", False),),
    ),
    Case(
        "a rotation: the name is on its way",
        (good("prod+retired", "A"), good("prod+next", "B")),
        listed(("prod", "A"), ("prod", "B")),
        (("rotation-handover", "prod+next", "B", "rotate prod", False),),
    ),
    Case(
        "a rotation on KMS: the old key has two aliases",
        (
            good("prod", "A", store=KMS),
            good("prod+retired", "A", pair=f"{KMS}prod", store=KMS),
            good("prod+next", "B", store=KMS),
        ),
        listed(("prod", "A"), ("prod", "B")),
        (("rotation-handover", "prod+next", "B", "rotate prod", False),),
    ),
    Case(
        "a rotation: the time of grace",
        (good("prod+retired", "A"), good("prod", "B")),
        listed(("prod", "A"), ("prod", "B")),
        (("rotation-grace", "prod+retired", "A", "rotate prod --finish", False),),
    ),
    Case(
        "a rotation: another machine wrote over the old key's API key id",
        (key("prod+retired", None, "A"), good("prod", "B")),
        listed(("prod", "A"), ("prod", "B")),
        (("rotation-grace", "prod+retired", None, "rotate prod --finish", False),),
    ),
    Case(
        "a rotation: the old API key is dead, its pair isn't",
        (key("prod+retired", "A"), good("prod", "B")),
        listed(("prod", "B")),
        (("rotation-ending", "prod+retired", "A", "rotate prod --finish", False),),
    ),
    Case(
        "a rotation on KMS: the deletion is scheduled, the alias is there",
        (key("prod+retired", "A", store=KMS, stopped=ENDING), good("prod", "B", store=KMS)),
        listed(("prod", "B")),
        (("rotation-ending", "prod+retired", "A", "rotate prod --finish", False),),
    ),
    Case(
        "a rotation on KMS: the deletion of the key that was to be replaced is scheduled",
        (key("prod", "A", store=KMS, stopped=ENDING), key("prod+next", store=KMS)),
        (),
        (
            ("rotation-begun", "prod+next", None, "revoke prod+next --destroy", False),
            ("destroy-interrupted", "prod", "A", "revoke prod --destroy", False),
        ),
    ),
    Case(
        "a rotation on KMS: that deletion was scheduled while the name was handed over",
        (
            key("prod", "A", store=KMS, stopped=ENDING),
            key("prod+retired", "A", store=KMS, stopped=ENDING),
            good("prod+next", "B", store=KMS),
        ),
        listed(("prod", "B")),
        (
            ("rotation-begun", "prod+next", "B", "revoke prod+next --destroy", False),
            ("destroy-interrupted", "prod", "A", "revoke prod --destroy", False),
        ),
    ),
    Case(
        "a rotation on KMS: the same, and the successor has ended",
        (
            key("prod", "A", store=KMS, stopped=ENDING),
            key("prod+retired", "A", store=KMS, stopped=ENDING),
        ),
        (),
        (
            ("rotation-ending", "prod+retired", "A", "revoke prod+retired --destroy", False),
            ("destroy-interrupted", "prod", "A", "revoke prod --destroy", False),
        ),
    ),
    Case(
        "a rotation on KMS: a successor came late, when a generate had the name",
        (key("prod", store=KMS, stopped=ARRIVING), key("prod+next", "B", "B", store=KMS)),
        listed(("prod", "B")),
        (("rotation-orphan", "prod+next", "B", "revoke prod+next --destroy", False),),
    ),
    Case(
        "a rotation: another key has got the name, and isn't registered",
        (key("prod"), good("prod+next", "B")),
        listed(("prod", "B")),
        (
            ("rotation-begun", "prod+next", "B", "revoke prod+next --destroy", False),
            ("not-registered", "prod", None, "enroll --name prod", False),
        ),
    ),
    Case(
        "a rotation: another run made a key of the name while that was handed over",
        (key("prod"), good("prod+next", "B"), good("prod+retired", "C")),
        listed(("prod", "B"), ("prod", "C")),
        (
            ("rotation-handover", "prod+next", "B", "rotate prod", False),
            ("not-registered", "prod", None, "enroll --name prod", False),
        ),
    ),
    Case(
        "a rotation: another run imported a key of the name while that was handed over",
        (key("prod", "A", passing=True, unknown=True), good("prod+next", "B"), good("prod+retired", "C")),
        listed(("prod", "B"), ("prod", "C")),
        (
            ("rotation-handover", "prod+next", "B", "rotate prod", False),
            ("gone", "prod", "A", "revoke prod --destroy", False),
        ),
    ),
    Case(
        "more than one rotation leaves",
        (PROD, good("prod+next", "B"), good("prod+retired", "C")),
        listed(("prod", "A"), ("prod", "B"), ("prod", "C")),
        (("rotation-inconsistent", "prod+next", "B", "", False),),
    ),
    Case(
        "an abort that was interrupted, and another rotation since: its successor is made",
        (PROD, key("prod+next"), good("prod+aborting", "B")),
        listed(("prod", "A"), ("prod", "B")),
        (
            ("rotation-begun", "prod+aborting", "B", "revoke prod+aborting --destroy", False),
            ("rotation-begun", "prod+next", None, "rotate prod", False),
        ),
    ),
    Case(
        "an abort that was interrupted, and another rotation since: the time of grace",
        (PROD, good("prod+retired", "C"), key("prod+aborting", "B", unknown=True)),
        listed(("prod", "A"), ("prod", "C")),
        (
            ("rotation-begun", "prod+aborting", "B", "revoke prod+aborting --destroy", False),
            ("rotation-grace", "prod+retired", "C", "rotate prod --finish", False),
        ),
    ),
    Case(
        "an abort that was interrupted, and another rotation since: no other key works",
        (key("prod", "A"), key("prod+retired", "C"), good("prod+aborting", "B")),
        listed(("prod", "B")),
        (("rotation-inconsistent", "prod+aborting", "B", "", False), ("refused", "prod", "A", "", False)),
    ),
    Case(
        "a successor whose model is gone",
        (good("prod+next", "B"),),
        listed(("prod", "B")),
        (("rotation-orphan", "prod+next", "B", "revoke prod+next --destroy", False),),
    ),
    Case(
        "an old key whose successor is gone",
        (good("prod+retired", "A"),),
        KALSHI_HAS_A,
        (("rotation-orphan", "prod+retired", "A", "rotate prod", False),),
    ),
    Case(
        "an abort of which the successor alone lives, with the name given back",
        (key("prod", "A", unknown=True), good("prod+aborting", "B")),
        listed(("prod", "B")),
        (
            ("rotation-orphan", "prod+aborting", "B", "rotate prod", False),
            ("gone", "prod", "A", "revoke prod --destroy", False),
        ),
    ),
    Case(
        "an abort of which the successor alone lives",
        (key("prod+retired", "A", unknown=True), good("prod+aborting", "B")),
        listed(("prod", "B")),
        (("rotation-handover", "prod+aborting", "B", "rotate prod", False),),
    ),
    Case(
        "an old key that was marked for its end after an abort had given the name back",
        (good("prod+finishing", "A"),),
        KALSHI_HAS_A,
        (("rotation-orphan", "prod+finishing", "A", "rotate prod", False),),
    ),
    Case(
        "an old key that is dead, and whose successor is gone",
        (key("prod+finishing", "B", unknown=True),),
        (),
        (("rotation-orphan", "prod+finishing", "B", "revoke prod+finishing --destroy", False),),
    ),
    Case("the old key of a rotation that was to be kept", (PROD, key("prod+kept-1", "B")), KALSHI_HAS_A, ()),
    Case(
        "rotations of one name in two stores",
        (PROD, key("prod+next"), good("other", "B", store=KMS), key("other+next", store=KMS)),
        listed(("prod", "A"), ("other", "B")),
        (
            ("rotation-begun", "other+next", None, "rotate other", False),
            ("rotation-begun", "prod+next", None, "rotate prod", False),
        ),
    ),
    Case(
        "a generate whose private half didn't arrive",
        (key("bot+importing"),),
        listed(("bot", "B")),
        (("generate-interrupted", "bot+importing", None, "generate bot", False),),
    ),
    Case(
        "a generate whose mark stayed",
        (key("bot+importing"), good("bot", "B")),
        listed(("bot", "B")),
        (("generate-interrupted", "bot+importing", None, "generate bot", False),),
    ),
    Case(
        "a generate on KMS",
        (key("bot", store=KMS, stopped=ARRIVING),),
        listed(("bot", "B")),
        (("generate-interrupted", "bot", None, "generate bot", False),),
    ),
    Case(
        "a revoke --destroy on KMS that was interrupted",
        (key("prod", "A", store=KMS, stopped=ENDING),),
        (),
        (("destroy-interrupted", "prod", "A", "revoke prod --destroy", False),),
    ),
    Case(
        "a key that somebody disabled is not taken for a PEM",
        (key("prod", "A", store=KMS, stopped=DISABLED),),
        KALSHI_HAS_A,
        (("cannot-sign", "prod", "A", "show prod", False),),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_what_is_found(case: Case) -> None:
    findings = judge(Snapshot(case.keys, case.listed, HSM, HERE))
    commands = [shlex.split(finding.command or "") for finding in findings]
    first_words = [" ".join(words[1 : words.index("--store")]) if words else "" for words in commands]
    assert [
        (found.code, found.name, found.api_key_id, words, found.repair is not None)
        for found, words in zip(findings, first_words, strict=True)
    ] == list(case.found)
    assert all(found.message for found in findings)


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_a_command_speaks_to_the_store_of_its_key(case: Case) -> None:
    for finding in judge(Snapshot(case.keys, case.listed, HSM, HERE)):
        if finding.command and finding.store:
            assert f"store {shlex.split(finding.command)[-1]}" == finding.store


IDS = st.sampled_from(["A", "B", "C", "D"])
NAMES = st.sampled_from(["prod", "bot"])
MARKS = st.sampled_from(["", "", "", "+next", "+retired", "+importing", "+kept-1"])


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Give any picture: no rule of the stores or of Kalshi holds, but a pair signs for the same ids wherever it is."""
    signs = draw(st.dictionaries(st.sampled_from("pqrs"), st.frozensets(IDS, max_size=3), min_size=1))
    stopped = st.none() | st.sampled_from([DISABLED, ENDING, ARRIVING])
    keys = []
    for pair in draw(st.lists(st.sampled_from(sorted(signs)), max_size=6)):
        store, why = draw(st.sampled_from([HSM, KMS])), draw(stopped)
        name = draw(NAMES) + draw(MARKS)
        signs_for = frozenset() if why else signs[pair]
        keys.append(Seen(name, draw(st.none() | IDS), f"store {store}", store, pair, signs_for, why))
    ids = draw(st.lists(IDS, unique=True))
    return Snapshot(tuple(keys), listed(*[(draw(NAMES), api_key_id) for api_key_id in ids]), HSM, HERE)


@given(snapshots())
def test_no_repair_deletes_anything_or_binds_what_is_not_proved(snapshot: Snapshot) -> None:
    for finding in judge(snapshot):
        if finding.repair is None:
            continue
        assert type(finding.repair) is Bind  # there is nothing else, and it writes an id
        assert finding.repair.key in snapshot.keys
        assert finding.repair.api_key_id in finding.repair.key.signs_for
        assert finding.repair.key.api_key_id not in finding.repair.key.signs_for  # what works is never unbound
        assert "+" not in finding.repair.key.name  # a workflow's key is left to its workflow


@given(snapshots())
def test_every_api_key_without_a_custodian_is_told(snapshot: Snapshot) -> None:
    findings = judge(snapshot)
    owned = {api_key_id for seen in snapshot.keys for api_key_id in (*seen.signs_for, seen.api_key_id)}
    importing = any("+importing" in seen.name or seen.stopped == ARRIVING for seen in snapshot.keys)
    told = {finding.api_key_id for finding in findings if finding.code == "elsewhere"}
    for listing in snapshot.listed:
        if listing.api_key_id not in owned and not importing:
            assert listing.api_key_id in told


@given(snapshots())
def test_after_the_repairs_nothing_is_left_to_repair(snapshot: Snapshot) -> None:
    ids = {finding.repair.key: finding.repair.api_key_id for finding in judge(snapshot) if finding.repair}
    keys = tuple(
        Seen(
            seen.name,
            ids.get(seen, seen.api_key_id),
            seen.store,
            seen.store_uri,
            seen.pair,
            seen.signs_for,
            seen.stopped,
        )
        for seen in snapshot.keys
    )
    assert not [finding for finding in judge(Snapshot(keys, snapshot.listed, HSM, HERE)) if finding.repair]
