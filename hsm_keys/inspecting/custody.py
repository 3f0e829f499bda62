"""Proving custody: the store's attributes of a private half, the tries to read it that are refused, and a signature."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import CustodyError, KeyUnusableError, NotPermittedError, SigningError
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict, Topic

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["CustodyReport", "examine_custody", "made_outside", "prove_custody", "prove_imported", "prove_possession"]

# Kalshi's messages begin with a digit: this text can't be taken for a request.
_PROOF_DOMAIN: Final = b"hsm-keys custody proof\0"

_MADE_BY: Final = "made_by"


@dataclass(frozen=True, slots=True)
class CustodyReport:
    """What speaks for and against custody of one key.

    Args:
        facts: What the store said, and what was tried.
    """

    facts: tuple[CustodyFact, ...]

    @property
    def problems(self) -> list[str]:
        """Why the private half isn't in custody; empty when it is."""
        return [_sentence(fact) for fact in self.facts if fact.verdict is CustodyVerdict.BAD]

    @property
    def unconfirmed(self) -> list[str]:
        """What the store leaves open."""
        return [_sentence(fact) for fact in self.facts if fact.verdict is CustodyVerdict.UNKNOWN]

    @property
    def imported(self) -> bool:
        """Whether nothing speaks against custody but that the private half was made elsewhere."""
        bad = {fact.topic for fact in self.facts if fact.verdict is CustodyVerdict.BAD}
        return Topic.MAKING in bad and bad <= {Topic.MAKING, Topic.PAST}

    @property
    def made_inside(self) -> bool:
        """Whether the store says that it made the pair."""
        return any(fact.topic is Topic.MAKING and fact.verdict is CustodyVerdict.GOOD for fact in self.facts)

    @property
    def verdict(self) -> str:
        """``in custody`` (as strong as what, if that is known), ``imported`` (by whom made) or ``not in custody``."""
        if self.imported:
            maker = next((fact.value for fact in self.facts if fact.name == _MADE_BY), None)
            return f"imported, made by {maker}" if maker else "imported"
        if self.problems:
            return "not in custody"
        keeper = next((fact.value for fact in self.facts if fact.topic is Topic.KEEPER), None)
        return f"in custody: as strong as {keeper}" if keeper else "in custody"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as it goes into JSON output: one value a fact, the verdict, and the reasons."""
        return {
            "verdict": self.verdict,
            **{fact.name: fact.value for fact in self.facts},
            "problems": self.problems,
            "unconfirmed": self.unconfirmed,
        }


def _sentence(fact: CustodyFact) -> str:
    return f"{fact.name}={fact.value}: {fact.note}" if fact.value is not None else f"{fact.name}: {fact.note}"


def examine_custody(key: StoredKey) -> CustodyReport:
    """Return what the store says and refuses, and that it signs with the private half of the public half that it shows.

    Raises:
        SigningError: If what the store signs doesn't verify.
    """
    return CustodyReport((*key.custody_facts(), prove_possession(key)))


def prove_custody(key: StoredKey) -> CustodyReport:
    """Examine the key, then sign a random message in the store and verify it outside, salt 32 bytes exactly.

    Raises:
        CustodyError: If the private half can be read or taken out, or could have been.
        SigningError: If what the store signs doesn't verify.
    """
    report = CustodyReport(tuple(key.custody_facts()))
    if report.problems:
        raise CustodyError(
            f"the key {key.name!r} is not in custody: {'; '.join(report.problems)}",
            hint=_instead_of(key),
        )
    return CustodyReport((*report.facts, _signs(key, key.public_key())))


def _instead_of(key: StoredKey) -> str:
    """Return what to do in place of using a key that isn't in custody; its API key may live."""
    if not key.ours:
        return "it was not adopted; let `hsm-keys enroll` make a key under another name"
    if key.api_key_id is not None:
        return (
            f"it is registered, as API key {key.api_key_id}: `hsm-keys rotate {key.name}` lets the store make a key in "
            "its place"
        )
    return "it was not registered; destroy it, and let `hsm-keys enroll` make a new one"


def prove_imported(key: StoredKey, public_key: PublicKey, maker: str) -> CustodyReport:
    """Examine an imported key, and prove that the store signs with the private half that was imported.

    Args:
        key: The key.
        public_key: The public half as it was made, not as the store gives it.
        maker: Who made the pair.

    Raises:
        CustodyError: If the private half can be read or taken out now.
        SigningError: If what the store signs doesn't verify.
    """
    report = CustodyReport((*key.custody_facts(), made_outside(maker)))
    if not report.imported:
        raise CustodyError(
            f"the store can give the imported key {key.name!r} out: {'; '.join(report.problems)}",
            hint="let the store make the key: hsm-keys enroll",
        )
    return CustodyReport((*report.facts, _signs(key, public_key)))


def made_outside(maker: str) -> CustodyFact:
    """Return the fact that only the workflow knows which saw the pair come."""
    note = "the private half was made outside: copies may exist"
    return CustodyFact(_MADE_BY, maker, CustodyVerdict.BAD, note, Topic.MAKING)


def prove_possession(key: StoredKey) -> CustodyFact:
    """Prove that the public half which the store shows is that of the private half with which it signs.

    To be called before a public half is shown to people: whoever registers another one at Kalshi gives the account
    away. Where a store doesn't sign for this caller, or now, its own word counts: such a store gives the public half
    of a key by itself, and nobody can put another one there.

    Raises:
        SigningError: If what the store signs doesn't verify with it.
        StoreError: If the store can't be reached.
    """
    try:
        return _signs(key, key.public_key())
    except (KeyUnusableError, NotPermittedError) as error:
        return CustodyFact(
            "signature_verified", value=None, verdict=CustodyVerdict.UNKNOWN, note=f"not tried: {error.message}"
        )


def _signs(key: StoredKey, public_key: PublicKey) -> CustodyFact:
    """Have a random message signed in the store, and verify it here."""
    message = _PROOF_DOMAIN + os.urandom(32)
    if not verifies(public_key, message, key.sign(message)):
        raise SigningError(
            f"what the store signs with {key.name!r} doesn't verify with its public half",
            hint="public and private object may not belong together; destroy them and enroll anew",
        )
    return CustodyFact("signature_verified", value=True, verdict=CustodyVerdict.GOOD)
