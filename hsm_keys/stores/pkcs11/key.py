"""A key pair in a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.errors import SigningError
from hsm_keys.signing.algorithms import signature_length, verifies
from hsm_keys.stores.base import StoredKey
from hsm_keys.stores.pkcs11.custody import custody_facts, read_facts
from hsm_keys.stores.pkcs11.marks import fingerprint, is_passing, read_mark

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.custody_verdicts import CustodyFact
    from hsm_keys.stores.marks import Mark
    from hsm_keys.stores.pkcs11.store import Pkcs11Store

__all__ = ["Pkcs11Key"]


_LOGIN_EACH_TIME: Final = (
    "each signature with it takes a login of its own (CKA_ALWAYS_AUTHENTICATE): "
    "two PKCS#11 calls more, with the PIN that is kept"
)


class Pkcs11Key(StoredKey):
    """A key pair in a token."""

    def __init__(
        self, store: Pkcs11Store, name: str, cka_id: bytes | None, public_key: PublicKey, mark: Mark | None = None
    ) -> None:
        self.name = name
        mark = mark or read_mark(cka_id)
        self.ours, self.api_key_id, self.environment = mark.ours, mark.api_key_id, mark.environment
        self.doubt, self.registering, self.offered = mark.doubt, mark.registering, mark.offered
        self.claim, self.importing = mark.claim, mark.importing
        self.uri = store.key_uri(name)
        self.cka_id = cka_id or b""
        self.fingerprint: Final = fingerprint(public_key)
        """SHA-1 of the public key's bits: the key's identity, whatever its label and id say."""
        self.passing = is_passing(cka_id, self.fingerprint)
        """Whether it is being made still; it says no more of a key where the module fixes CKA_ID."""
        self._store = store
        self._public_key = public_key
        self.signature_length: Final = signature_length(public_key)
        self._proved: dict[bool, int] = {}  # of messages, of digests: since which opening of the token

    def public_key(self) -> PublicKey:
        """Return the public half, read once from the token."""
        return self._public_key

    def current(self) -> StoredKey:
        """Return the key that carries this key's name now."""
        return self._store.key(self.name)

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return what the token says about the private object."""
        attributes: dict[str, bool | str | int | None] = {"label": self.name, "id": self.cka_id.hex()}
        return {**attributes, **self._store.examine(self, read_facts)}

    def remarks(self) -> list[str]:
        """Return that each signature takes a login, where the token says so."""
        return [_LOGIN_EACH_TIME] if self.attributes()["always_authenticate"] else []

    def custody_facts(self) -> list[CustodyFact]:
        """Return the token's attributes, judged, and the outcome of trying to read the private half."""
        return self._store.examine(self, custody_facts)

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made in the token.

        The first one since the token was opened is verified here, with a salt of exactly 32 bytes: a module that
        ignores the parameter signs without complaint what Kalshi refuses.

        Raises:
            StoreError: If the token can't be reached.
            SigningError: If the token refuses, or gives something that doesn't verify.
        """
        return self._signed(message, digest=False)

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Return the RSASSA-PSS signature over a SHA-256 digest, made in the token, where it has CKM_RSA_PKCS_PSS.

        Raises:
            StoreError: If the token can't be reached.
            SigningError: If the token refuses, or gives something that doesn't verify.
        """
        return self._signed(digest, digest=True)

    def _signed(self, message: bytes, *, digest: bool) -> bytes:
        if not isinstance(message, bytes):  # python-pkcs11 would encode a str, and sign it
            raise TypeError(f"a message to sign is bytes, not {type(message).__name__}")
        signature = self._store.sign(self, message, digest=digest)
        if len(signature) != self.signature_length:
            raise SigningError(
                f"the token gave a signature of {len(signature)} bytes instead of {self.signature_length}",
                hint="the module is at fault: try the vendor's newest version",
            )
        if self._proved.get(digest) != self._store.opened:
            if not verifies(self._public_key, message, signature, digest=digest):
                raise SigningError(
                    f"the token's signature with the key {self.name!r} doesn't verify",
                    hint="public and private object may not belong together, or the module ignores the PSS salt",
                )
            self._proved[digest] = self._store.opened
        return signature
