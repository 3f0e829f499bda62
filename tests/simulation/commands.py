"""What a person runs: the commands, as the command line puts them together from the workflows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hsm_keys.errors import KeyNotRegisteredError
from hsm_keys.inspecting.reconcile import judge
from hsm_keys.inspecting.snapshot import observe
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle import enroll as enrolling
from hsm_keys.lifecycle.generate import Generator
from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
from hsm_keys.lifecycle.managing import find_manager
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.lifecycle.repairing import fix
from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
from hsm_keys.lifecycle.revoke import Revoker, finish_offline
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.lifecycle.rotation_marks import Stage
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.signer import RequestSigner

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.inspecting.findings import Finding
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.lifecycle.revoke import Revoked
    from hsm_keys.lifecycle.rotate import Rotation
    from hsm_keys.signing.signer import MessageSigner
    from hsm_keys.stores.base import KeyStore
    from tests.simulation.kalshi import Connect


@dataclass
class Told:
    """What a command told its user, having ended well.

    Args:
        stage: ``enrolled``, ``adopted``, ``grace``, ``done``, ``aborted``, ``revoked``, ``reconciled`` or ``minted``.
        api_key_id: The API key that has the name now, or the one that was revoked.
        retired: The API key that still works, or that was ended.
        destroyed: Whether a private half was said to be destroyed.
        findings: What reconcile found and didn't repair.
        fixed: What it repaired.
        notes: Which API keys of the same name it named that it left alone.
        public: The public half that was shown, to be registered by hand.
    """

    stage: str
    api_key_id: str | None = None
    retired: str | None = None
    destroyed: bool = False
    findings: list[Finding] = field(default_factory=list)
    fixed: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    public: bytes = b""


@dataclass
class Session:
    """What a command is given.

    Args:
        open: Opens the store.
        connect: Makes clients of the environment.
        bootstrap: The bootstrap key of the account; None if there is none.
        say: Hears the lines for people.
        scopes: What a new key may do.
        subaccount: To what it is restricted.
    """

    open: Callable[[], KeyStore]
    connect: Connect
    bootstrap: MessageSigner | None
    say: Callable[[str], None]
    scopes: list[str] | None = None
    subaccount: int | None = None

    def managed(
        self,
        store: KeyStore,
        stack: ExitStack,
        *,
        changes: bool = True,
        prefer: str | None = None,
        avoid: str | None = None,
    ) -> KalshiClient:
        """Return a client that signs management calls."""
        if self.bootstrap is not None:
            return stack.enter_context(self.connect(RequestSigner(self.bootstrap)))
        environment = self.connect.environment
        manager = find_manager(store.keys(), self.connect, environment, changes=changes, prefer=prefer, avoid=avoid)
        if manager is None:
            raise KeyNotRegisteredError("there is no key to sign management calls with")
        return stack.enter_context(self.connect(manager.key.signer()))


def enroll(session: Session, name: str) -> Told:
    with ExitStack() as stack:
        store = stack.enter_context(session.open())
        done = enrolling.enroll(
            store,
            name,
            key_type=KeyType.ED25519,
            scopes=session.scopes,
            subaccount=session.subaccount,
            account=Account(session.managed(store, stack), session.connect),
            report=session.say,
        )
        return Told("enrolled", done.api_key_id)


def mint(session: Session, name: str) -> Told:
    with session.open() as store:
        environment = session.connect.environment
        done = enrolling.enroll_offline(store, name, KeyType.ED25519, session.say, environment=environment)
        shown = done.key.public_key()
        assert isinstance(shown, Ed25519PublicKey)
        return Told("minted", public=shown.public_bytes_raw())


def adopt(session: Session, name: str, api_key_id: str) -> Told:
    with session.open() as store:
        environment = session.connect.environment
        done = enrolling.adopt(
            store, name, api_key_id, environment=environment, connect=session.connect, report=session.say
        )
        return Told("adopted", done.api_key_id)


def generate(session: Session, name: str) -> Told:
    with ExitStack() as stack:
        store = stack.enter_context(session.open())
        wanted = ApiKeyRequest(name, session.scopes, session.subaccount)
        maker = KalshiGenerator(
            wanted, KeyType.ED25519, Account(session.managed(store, stack), session.connect), session.say
        )
        return Told("enrolled", Generator(store, maker).run().api_key_id)


def rotate(session: Session, name: str, *, finish: bool = False, abort: bool = False, keep: bool = False) -> Told:
    with ExitStack() as stack:
        store = stack.enter_context(session.open())
        stage = Stage.read(store, name)
        newer = stage.current if stage.handed_over else stage.successor
        leaver = newer if abort else stage.retired
        ended = leaver.api_key_id if leaver else None
        management = session.managed(store, stack, prefer=name, avoid=ended)
        rotator = Rotator(store, Account(management, session.connect), session.say)
        if abort:
            return _told(rotator.abort(name), ended)
        if finish or stage.handed_over:
            old = stage.retired or stage.current
            return _told(rotator.finish(name, keep_old=keep), old.api_key_id if old else None)
        return _told(rotator.advance(name), None)


def _told(done: Rotation, ended: str | None) -> Told:
    retired = done.retired.api_key_id if done.retired else ended
    return Told(done.stage, done.key.api_key_id, retired, destroyed=done.stage != "grace")


def revoke(session: Session, word: str, *, destroy: bool) -> Told:
    with ExitStack() as stack:
        store = stack.enter_context(session.open())
        done = finish_offline(store, word, session.connect.environment, session.say) if destroy else None
        if done is None:
            management = session.managed(store, stack, avoid=word)
            parts = store, Account(management, session.connect), session.say
            plan = RevocationPlanner(*parts).plan(word, destroy=destroy, force=True, never_registered=True)
            done = Revoker(*parts).carry_out(plan)
        return _revoked(done)


def _revoked(done: Revoked) -> Told:
    destroyed = done.private_half in {"destroyed", "deletion scheduled"}
    return Told("revoked", done.api_key_id, destroyed=destroyed)


def reconcile(session: Session, *, fixing: bool) -> Told:
    with ExitStack() as stack:
        store = stack.enter_context(session.open())
        management = session.managed(store, stack, changes=False)
        account = Account(management, session.connect)
        found = judge(observe([store], account, session.say))
        fixed = fix(found, [store], account, session.say) if fixing else []
        return Told("reconciled", findings=[each for each in found if each not in fixed], fixed=fixed)
