"""Evidence for custody of a private object: its attributes, and tries to read it.

Attributes alone are no proof, since a module may report anything. So the private half is requested, an extractable copy
of it is requested, and the token is asked to wrap it with a key that is made for this test only. If any of this
succeeds, the result is dropped at once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, MechanismFlag
from pkcs11.mechanisms import KeyType as CkKeyType
from pkcs11.mechanisms import Mechanism

from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict, Topic
from hsm_keys.stores.pkcs11.attributes import NOT_SAID, read

__all__ = ["custody_facts", "read_facts"]

_GIVEN_OUT: Final = "it was given out"
_RSA_SECRETS: Final = (
    Attribute.PRIVATE_EXPONENT,
    Attribute.PRIME_1,
    Attribute.PRIME_2,
    Attribute.EXPONENT_1,
    Attribute.EXPONENT_2,
    Attribute.COEFFICIENT,
)
"""Whoever has one of them has the key (RFC 8017, section 3.2)."""

_WRAPS: Final = (Mechanism.AES_KEY_WRAP_PAD, Mechanism.AES_KEY_WRAP)
_FACTS: Final[dict[str, tuple[Attribute, bool | None]]] = {
    "sensitive": (Attribute.SENSITIVE, True),
    "extractable": (Attribute.EXTRACTABLE, False),
    "always_sensitive": (Attribute.ALWAYS_SENSITIVE, True),
    "never_extractable": (Attribute.NEVER_EXTRACTABLE, True),
    "local": (Attribute.LOCAL, True),
    "private": (Attribute.PRIVATE, True),
    "sign": (Attribute.SIGN, True),
    "decrypt": (Attribute.DECRYPT, False),
    "unwrap": (Attribute.UNWRAP, False),
    "derive": (Attribute.DERIVE, False),
    "modifiable": (Attribute.MODIFIABLE, None),
    "always_authenticate": (Attribute.ALWAYS_AUTHENTICATE, None),
}
"""Attributes of the private key (PKCS#11 v2.40, sections 4.4 to 4.9) and what a key in custody answers."""

_DECISIVE: Final = frozenset({"sensitive", "extractable", "always_sensitive", "never_extractable", "private", "sign"})
_TOPICS: Final = {"local": Topic.MAKING, "always_sensitive": Topic.PAST, "never_extractable": Topic.PAST}
_NOTES: Final = {
    "sensitive": "the private half can be read in the clear",
    "extractable": "the private half can be wrapped and taken out",
    "always_sensitive": "the private half was readable at some time",
    "never_extractable": "the private half could be taken out at some time",
    "local": "the token doesn't say that the key was made inside it",
    "private": "the key can be made, used and renamed without a login: the PIN doesn't guard it",
    "sign": "the key can't sign",
    "decrypt": "the key can do more than sign",
    "unwrap": "the key can do more than sign",
    "derive": "the key can do more than sign",
}


def read_facts(private: Any) -> dict[str, bool | None]:
    """Return what the token says about the private half, under stable names; None where it doesn't say."""
    answers = {name: read(private, attribute) for name, (attribute, _) in _FACTS.items()}
    return {name: None if answer is None else bool(answer) for name, answer in answers.items()}


def custody_facts(private: Any) -> list[CustodyFact]:
    """Return what speaks for and against custody: the attributes, and what came of attempts to get the private half."""
    answers = read_facts(private)
    facts = [_judge(name, answer, answers) for name, answer in answers.items() if _FACTS[name][1] is not None]
    facts += (_try_to_read(private), _try_to_copy(private))
    facts += _try_to_wrap(private)
    return facts


def _judge(name: str, answer: bool | None, answers: dict[str, bool | None]) -> CustodyFact:
    topic = _TOPICS.get(name, Topic.KEEPING)
    if answer is None:
        return CustodyFact(name, None, CustodyVerdict.UNKNOWN, "the token doesn't say", topic)
    if answer == _FACTS[name][1]:
        return CustodyFact(name, answer, CustodyVerdict.GOOD, topic=topic)
    # Some modules report LOCAL false for keys that they made. A key that came from outside can't have been
    # sensitive always and extractable never, so these two overrule it.
    imported = name == "local" and not (answers["always_sensitive"] and answers["never_extractable"])
    verdict = CustodyVerdict.BAD if name in _DECISIVE or imported else CustodyVerdict.UNKNOWN
    return CustodyFact(name, answer, verdict, _NOTES[name], topic)


def _try_to_read(private: Any) -> CustodyFact:
    """Try to read each part of the secret; a value is dropped at once if the token gives it out."""
    is_rsa = read(private, Attribute.KEY_TYPE) == CkKeyType.RSA
    answers: dict[str, list[str]] = {}
    for secret in _RSA_SECRETS if is_rsa else (Attribute.VALUE,):
        try:
            answer = _GIVEN_OUT if private[secret] else "the answer was empty"
        except (*NOT_SAID, ckr.PKCS11Error) as error:
            answer = type(error).__name__
        answers.setdefault(answer, []).append(f"CKA_{secret.name}")
    readable = _GIVEN_OUT in answers
    refusals = "; ".join(f"{', '.join(secrets)}: {answer}" for answer, secrets in answers.items())
    return CustodyFact(
        "private_half_readable",
        readable,
        CustodyVerdict.BAD if readable else CustodyVerdict.GOOD,
        f"tried to read {refusals}",
    )


def _try_to_copy(private: Any) -> CustodyFact:
    """Ask for a copy that may be taken out (PKCS#11 v2.40, section 4.9, lets no token give one).

    To set CKA_EXTRACTABLE on the key itself would harm it where a token is lax. A copy shows the same; it is destroyed.
    """
    try:
        copy = private.copy({Attribute.TOKEN: False, Attribute.EXTRACTABLE: True})
    except (ckr.PKCS11Error, *NOT_SAID) as error:
        freed, answer = False, type(error).__name__
    else:
        freed = read(copy, Attribute.EXTRACTABLE) is not False
        answer = _GIVEN_OUT if freed else "the copy can't be taken out either"
        with suppress(ckr.PKCS11Error):
            copy.destroy()
    return CustodyFact(
        "private_half_copyable",
        freed,
        CustodyVerdict.BAD if freed else CustodyVerdict.GOOD,
        f"tried to copy it with CKA_EXTRACTABLE true: {answer}",
    )


def _try_to_wrap(private: Any) -> list[CustodyFact]:
    """Ask the token to wrap the private half, where it offers that; a wrapped key is a key taken out."""
    session = private.session
    try:
        offered = session.token.slot.get_mechanisms()
    except ckr.PKCS11Error:
        return []
    mechanism = next((one for one in _WRAPS if one in offered), None)
    if mechanism is None or Mechanism.AES_KEY_GEN not in offered:
        return []
    try:
        wrapping = session.generate_key(CkKeyType.AES, 256, store=False, capabilities=MechanismFlag.WRAP)
    except (ckr.PKCS11Error, *NOT_SAID):
        return []  # no such key can be made here: nothing was tried
    try:
        wrapped = bool(wrapping.wrap_key(private, mechanism=mechanism))
        answer = _GIVEN_OUT if wrapped else "the answer was empty"
    except (ckr.PKCS11Error, *NOT_SAID) as error:
        wrapped, answer = False, type(error).__name__
    finally:
        with suppress(ckr.PKCS11Error):
            wrapping.destroy()
    verdict = CustodyVerdict.BAD if wrapped else CustodyVerdict.GOOD
    return [
        CustodyFact("private_half_wrappable", wrapped, verdict, f"tried to wrap it with CKM_{mechanism.name}: {answer}")
    ]
