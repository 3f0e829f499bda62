"""Enrolling: make a key in the store, prove custody, register it at Kalshi, bind the id, prove a signed request.

Each step leaves a state that the next run can read: no key; a minted key (without an API key id); a minted
key that Kalshi knows already, because the answer to ``POST /api_keys`` was lost; a registered key. So the
command can be killed anywhere and run again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import (
    KeyAmbiguousError,
    KeyBusyError,
    KeyExistsError,
    KeyNotFoundError,
    KeyProblemError,
    UsageError,
)
from hsm_keys.inspecting.custody import CustodyReport, prove_custody
from hsm_keys.inspecting.proof_of_possession import accepts, prove_registration
from hsm_keys.kalshi.api_keys import new_key_fields
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.registering import ApiKeyRequest, Registrar, bind
from hsm_keys.lifecycle.rights import MOVES_MONEY, check_manages
from hsm_keys.lifecycle.targets import check_no_end_begun, check_no_import_begun, check_not_handed_over
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.base import KeyState
from hsm_keys.stores.key_names import SUCCESSOR, check_new_name, is_marked
from hsm_keys.stores.marks import UNNAMED
from hsm_keys.stores.ownership import name_in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.account import Account
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["Enrollment", "adopt", "enroll", "enroll_offline"]

_BY_HAND: Final = (
    "this account may not register keys by API (below Premier): run `hsm-keys enroll --name {name} --offline`, "
    "which shows how to paste the public key on Kalshi's account page"
)


@dataclass(frozen=True, slots=True)
class Enrollment:
    """How an enrolment ended.

    Args:
        key: The key, as its store has it now.
        custody: What speaks for custody.
        api_key_id: The id that Kalshi gave; None while the key is only minted.
    """

    key: StoredKey
    custody: CustodyReport
    api_key_id: str | None


def enroll_offline(
    store: KeyStore,
    name: str,
    key_type: KeyType | None,
    report: Callable[[str], None],
    *,
    environment: str,
    named: bool = True,
) -> Enrollment:
    """Make the pair in the store, or pick up one that was made before, and prove custody; nothing is sent to Kalshi.

    From then on a person may register the public half, so the store says where: else a command in another environment,
    where Kalshi doesn't know it, would destroy a pair that lives.

    Args:
        store: Where the private half will live.
        name: The key's name.
        key_type: What to make; None makes RSA-2048, and takes what is there if a key is picked up.
        environment: The environment of Kalshi at hand.
        named: Whether somebody named that environment: else the key may be registered in any.
        report: Called with a line for people after each step.

    Raises:
        KeyBusyError: If another run works on the name.
        UsageError: If the name can't be one.
        KeyExistsError: If a registered key has the name.
        WrongEnvironmentError: If it was to be registered in another environment.
        ForeignKeyError: If a key that isn't ours has it.
        CustodyError: If the private half isn't in custody.
        StoreError: If the store can't make it.
    """
    with exclusive(store, check_new_name(name)):
        store.mend(name)
        _check_remainder(store, name, environment)
        offered_in = environment if named else UNNAMED
        minted = _mint(store, name, key_type, offered_in, report)[0]
        key = minted.key
        check_environment(name, key.environment, environment)
        if key.offered:
            return minted
        # Also if an earlier run has written it already: another run may have begun to end the pair since.
        return replace(minted, key=store.begin_registration(key, key.environment or offered_in, key.claim))


def _mint(
    store: KeyStore, name: str, key_type: KeyType | None, environment: str, report: Callable[[str], None]
) -> tuple[Enrollment, bool]:
    """Return the minted key, and whether it is new: made in this call, so that Kalshi can't know it."""
    found = _unregistered(store, name)
    new = found is None
    if new and store.clear(name + SUCCESSOR):
        report(f"removed a successor of an earlier key {name!r}, which arrived late")
    key = store.generate(name, key_type or KeyType.RSA_2048, environment) if found is None else found
    if key_type is not None and key.key_type is not key_type:
        raise KeyProblemError(
            f"an unregistered key {name!r} of the type {key.key_type} is there already, and {key_type} was asked for",
            hint=f"enroll it as it is (without --key-type), or choose another name than {name!r}",
        )
    report(f"{'made' if new else 'picked up'} the {key.key_type} key {name!r} in {store.describe()}")
    if new:
        store.confirm(key)
    check_not_handed_over(store, name)
    custody = prove_custody(key)
    report(f"proved custody: {custody.verdict}, and it signs (verified here)")
    for doubt in custody.unconfirmed:
        report(f"not confirmed by the store: {doubt}")
    return Enrollment(key, custody, None), new


def enroll(
    store: KeyStore,
    name: str,
    *,
    key_type: KeyType | None,
    scopes: Sequence[str] | None,
    subaccount: int | None,
    account: Account,
    report: Callable[[str], None],
) -> Enrollment:
    """Take a key from nothing, or from where an earlier run stopped, to registered and proved.

    Args:
        store: Where the private half lives.
        name: The key's name, in the store and at Kalshi.
        key_type: What to make; None makes RSA-2048.
        scopes: What the API key may do; None is Kalshi's default, ``read`` and ``write``.
        subaccount: Restricts the API key to one subaccount, 0 to 63.
        account: Where to register it; what signs for it may manage API keys.
        report: Called with a line for people after each step.

    Raises:
        UsageError: If the name, a scope or the subaccount can't be; nothing was done.
        KeyExistsError: If the name is enrolled already, in this environment or in another one.
        WrongEnvironmentError: If an earlier run was about to register the key in another one; nothing was done.
        ForeignKeyError: If a key that isn't ours has the name; nothing was done.
        KeyProblemError: If the key that signs the management calls can't manage API keys; nothing was done.
        CustodyError: If the private half isn't in custody; it is not registered.
        KalshiError: If Kalshi refuses; the key stays in the store, and the next run picks it up.
        OutcomeUnknownError: If it isn't known whether Kalshi registered the key; the next run finds out.
    """
    new_key_fields(name, scopes, subaccount)
    with exclusive(store, name):
        store.mend(name)
        _check_remainder(store, name, account.environment)
        listed = account.list_now()  # also shows, before anything is made, that we may ask
        check_manages(account.manager_id, listed)
        if scopes is None:
            report(MOVES_MONEY)
        minted, new = _mint(store, name, key_type, account.environment, report)
        wanted = ApiKeyRequest(name, scopes, subaccount, by_hand=_BY_HAND.format(name=name))
        registrar = Registrar(store, account, report)
        key, api_key_id = registrar.register(minted.key, wanted, listed, new=new)
    return Enrollment(key, minted.custody, api_key_id)


def adopt(
    store: KeyStore, name: str, api_key_id: str, *, environment: str, connect: Connect, report: Callable[[str], None]
) -> Enrollment:
    """Bind an API key id that was registered by hand, after proving that it belongs to the key.

    This is the one way in which a key that another program made becomes ours.

    Args:
        store: Where the private half lives.
        name: The key's name in the store.
        api_key_id: The id.
        environment: The environment of Kalshi that ``connect`` leads to.
        connect: Makes a client of that environment for a signer.
        report: Called with a line for people after each step.

    Raises:
        UsageError: If that can't be an API key id, or another program's key has a name that workflows give.
        KeyNotFoundError: If the store has no such key.
        WrongEnvironmentError: If the key is registered in another environment; nothing was changed.
        KeyExistsError: If the key is bound to another id that still works.
        KeyBusyError: If the name leads to another key by now, or to none.
        CustodyError: If the private half isn't in custody.
        KalshiError: If Kalshi refuses the key's signature for that id; nothing was changed.
    """
    api_key_id = check_api_key_id(api_key_id)
    key = store.key(name)
    if not key.ours and is_marked(name):
        raise UsageError(
            f"the name {name!r} means a key in an unfinished workflow, so it can't be adopted; nothing was changed",
            hint="give the key another label with the vendor's tool, then adopt it",
        )
    check_environment(name, key.environment, environment)
    custody = prove_custody(key)
    report(f"proved custody of {name!r} in {store.describe()}: {custody.verdict}")
    other = key.api_key_id
    if other is not None and other != api_key_id and accepts(connect, key, other):
        raise KeyExistsError(
            f"the key {name!r} is bound to API key {other}, and Kalshi still accepts it; nothing was changed",
            hint=f"if {api_key_id} is to replace it, delete {other} at Kalshi first, then run the same command again",
        )
    prove_registration(connect, key, api_key_id)
    report(f"proved it: Kalshi accepts its signature for API key {api_key_id}")
    if other != api_key_id:
        if other is not None:
            report(f"it was bound to API key {other}, for which Kalshi doesn't accept its signature")
        key = bind(store, key, api_key_id, environment, report)
    _check_named(store, key)
    return Enrollment(key, custody, api_key_id)


def _check_named(store: KeyStore, key: StoredKey) -> None:
    """Check that the name still means this key: a change of the name may have been under way.

    Raises:
        KeyBusyError: If it doesn't.
    """
    try:
        now: StoredKey | None = store.key(key.name)
    except (KeyNotFoundError, KeyAmbiguousError):
        now = None
    if now is None or (now.name, now.public_pem()) != (key.name, key.public_pem()):
        raise KeyBusyError(
            f"somebody else has changed what is called {key.name!r} meanwhile, or an earlier command has, late",
            hint="look with `hsm-keys list`, then run the same command again",
        )


def _check_remainder(store: KeyStore, name: str, environment: str) -> None:
    """Make sure that what an earlier run left of a name, if it left anything, isn't for another environment."""
    remainder = _unregistered(store, name)
    if remainder is not None:
        check_environment(name, remainder.environment, environment)


def _unregistered(store: KeyStore, name: str) -> StoredKey | None:
    """Return the key of that name if an earlier run left it unregistered; None if there is no such key.

    Raises:
        KeyExistsError: If it is registered, or a key of the name is half ended or half generated.
        ForeignKeyError: If it isn't ours.
    """
    check_new_name(name)
    check_no_end_begun(store, name)
    check_no_import_begun(store, name)
    try:
        key = store.key(name)
    except KeyNotFoundError:
        return None
    if key.state is KeyState.FOREIGN:
        raise name_in_use(key, store.describe())
    if key.state is KeyState.REGISTERED:
        raise KeyExistsError(
            f"the key {name!r} is enrolled already, as API key {key.api_key_id} of the environment {key.environment}; "
            "nothing was changed",
            hint=f"see it with `hsm-keys show {name}`, or choose another name",
        )
    return key
