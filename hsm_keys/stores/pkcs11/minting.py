"""Makes a pair under a name that another run may be using too: no token refuses a second key with the same label.

A run that sees two keys with its label gives way. Of two runs, the later one sees both pairs when it looks after making
its own, so at most one continues. If both see both pairs, neither continues, and the next run finds the name free.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute
from pkcs11.mechanisms import KeyType as CkKeyType

from hsm_keys.errors import KeyBusyError, KeyExistsError, KeyNotFoundError, StoreError
from hsm_keys.stores.key_names import ENDING
from hsm_keys.stores.pkcs11.attributes import read
from hsm_keys.stores.pkcs11.errors import is_gone, mapped_errors
from hsm_keys.stores.pkcs11.halves import NO_HALF
from hsm_keys.stores.pkcs11.key_pairs import (
    can_write_id,
    destroy_pair,
    loses_public_half,
    make_pair,
    write_id,
    write_label,
)
from hsm_keys.stores.pkcs11.marks import (
    fingerprint,
    is_minted,
    is_passing,
    is_passing_registered,
    minted_id,
    passing_id,
)
from hsm_keys.stores.pkcs11.objects import is_ours

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import KeyType, PublicKey
    from hsm_keys.stores.pkcs11.module import Module
    from hsm_keys.stores.pkcs11.objects import Objects, Pair

__all__ = ["Mint", "busy", "is_being_made", "is_stub", "remove_stub", "remove_surplus", "shows_others_late"]

_SHOWS_OTHERS_LATE: Final = "SoftHSM"  # see ``fresh_process``


@dataclass(frozen=True, slots=True)
class Mint:
    """Makes pairs in one token.

    Args:
        module: The token's module.
        objects: The token's, in a session that may write.
        description: The token, for people.
    """

    module: Module
    objects: Objects
    description: str

    def make(self, name: str, key_type: KeyType, environment: str | None = None) -> tuple[PublicKey, bytes]:
        """Make a pair, and return its public half and the CKA_ID of both objects, which says that it is minted.

        Args:
            name: The label of both objects.
            key_type: What to make.
            environment: For which environment of Kalshi's; None if nobody has said so.

        Raises:
            KeyExistsError: If the name is taken.
            KeyBusyError: If somebody else made or changed a key of that name meanwhile; this one is destroyed.
            StoreError: If the token refuses; what it left of the pair is removed.
        """
        # Not the final CKA_ID: until it is known that no other run makes this key, it tells whose pair is whose.
        mark = passing_id(environment)
        with self.module.mutex:
            with mapped_errors(f"look up the key {name!r}"):
                if self.objects.private_keys(name):
                    raise KeyExistsError(
                        f"{self.description} already has a key called {name!r}",
                        hint=f"choose another name, or see it: hsm-keys show {name}",
                    )
            private, public_key = self._made(name, key_type, mark)
            with mapped_errors(f"make the key {name!r}"):
                try:
                    cka_id = minted_id(public_key, environment)
                    self._settle(private, name, mark, cka_id)
                except ckr.ObjectHandleInvalid:
                    _destroy_what_is_left(self.objects, private)
                    raise busy(name, self.description, "it was destroyed again") from None
        return public_key, cka_id

    def _made(self, name: str, key_type: KeyType, mark: bytes) -> tuple[Any, PublicKey]:
        try:
            return make_pair(self.objects, name, key_type, mark)
        except KeyNotFoundError:
            raise busy(name, self.description, "it was destroyed again") from None
        except StoreError:
            with mapped_errors(f"look up the key {name!r}"):
                if self.objects.private_keys(name):  # it may have taken our public object for a leftover of a crash
                    raise busy(name, self.description, "what was left of this one is removed") from None
            raise

    def _settle(self, private: Any, name: str, mark: bytes, cka_id: bytes) -> None:
        """Write the usual CKA_ID, or give way."""
        if read(private, Attribute.ID) != mark or private[Attribute.LABEL] != name:
            # Another run found the pair, took it for a leftover of a crash, and has continued with it.
            raise busy(name, self.description, "it is theirs now")
        if len(self.objects.private_keys(name)) > 1 or loses_public_half(self.objects, private):
            destroy_pair(self.objects, private)
            raise busy(name, self.description, "this one is destroyed")
        try:
            write_id(self.objects, private, cka_id)
        except ckr.ObjectHandleInvalid:
            raise
        except ckr.PKCS11Error:
            pass  # a token with a fixed CKA_ID: the mark says the same


def _destroy_what_is_left(objects: Objects, private: Any) -> None:
    """Destroy an Ed25519 private object that has lost its public half: it can't be registered any more."""
    with suppress(ckr.PKCS11Error):
        if read(private, Attribute.KEY_TYPE) == CkKeyType.EC_EDWARDS and not objects.public_objects(private):
            private.destroy()


def is_being_made(pair: Pair) -> bool:
    """Tell whether a pair of ours is being made still, or its maker was killed before it was done.

    It says no more of one in a token that fixes CKA_ID.
    """
    if pair.public_key is None:
        return is_stub(pair)
    return pair.mark.ours and is_passing(pair.cka_id, fingerprint(pair.public_key))


def is_stub(pair: Pair) -> bool:
    """Tell whether a private object of ours lost its public half while it was made; ``remove_stub`` destroys it."""
    return pair.mark.ours and _can_be_stub(pair.cka_id) and pair.problem.startswith(NO_HALF)


def remove_stub(objects: Objects, private: Any) -> bool:
    """Destroy an Ed25519 private object that lost its public half before a registration was begun, or while imported.

    Another run took its public object for a crash's, and its maker was killed before it saw that. Of an imported one
    that run has deleted the API key first. A token that fixes CKA_ID refuses to have it written: there "minted" is also
    what a registered key says.

    Returns:
        Whether it was one, and is destroyed.

    Raises:
        PKCS11Error: If the token is gone.
    """
    cka_id = read(private, Attribute.ID)
    if not _can_be_stub(cka_id) or read(private, Attribute.KEY_TYPE) != CkKeyType.EC_EDWARDS:
        return False
    try:
        if not objects.lacks_half(private):
            return False
        objects.write(private, Attribute.ID, cka_id)
        private.destroy()
    except ckr.PKCS11Error as error:
        if is_gone(error) and not isinstance(error, ckr.ObjectHandleInvalid):  # another run destroyed that one
            raise
        return False
    return True


def _can_be_stub(cka_id: bytes | None) -> bool:
    return is_minted(cka_id) or is_passing_registered(cka_id)


def remove_surplus(objects: Objects, name: str) -> None:
    """Destroy the pairs too many of a name that are being made: their makers give way, or were killed before they did.

    A maker writes the usual CKA_ID once it has seen that its pair is the only one. So where one pair has it, those that
    don't are of no use. Where none has, none that was made here is, but in a token that fixes CKA_ID: there all stay.

    Raises:
        PKCS11Error: If the module refuses.
    """
    pairs = [private for private in objects.private_keys(name) if is_ours(private)]
    if len(pairs) > 1:
        surplus = [private for private in pairs if _is_passing(objects, private)]
        for private in surplus:
            if len(surplus) == len(pairs) and not _is_of_no_use(objects, private):
                continue
            if not is_passing_registered(read(private, Attribute.ID)) or objects.lacks_half(private):
                destroy_pair(objects, private)
            elif not objects.private_keys(name + ENDING):  # `revoke` ends it, and its API key
                write_label(objects, private, name + ENDING)


def _is_of_no_use(objects: Objects, private: Any) -> bool:
    return is_minted(read(private, Attribute.ID)) and can_write_id(objects, private)


def _is_passing(objects: Objects, private: Any) -> bool:
    cka_id = read(private, Attribute.ID)
    if objects.lacks_half(private):
        # Put in by a run whose import another one had taken over: that one deleted its API key, removed the public
        # object that came first, and put in a key of its own.
        return is_passing_registered(cka_id)
    public_key = objects.public_key_of(private)
    return public_key is not None and is_passing(cka_id, fingerprint(public_key))


def shows_others_late(module: Module) -> bool:
    """Tell whether the module may not show this process what another one has just made; see ``fresh_process``."""
    return _SHOWS_OTHERS_LATE in str(module.library.manufacturer_id)


def busy(name: str, where: str, ending: str) -> KeyBusyError:
    """Return the error of a run that gives way."""
    return KeyBusyError(
        f"somebody else is making or using a key {name!r} in {where} at this moment; {ending}",
        hint="run the same command again in a while: it goes on from what is there",
    )
