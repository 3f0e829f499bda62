"""The calls of the Transit engine: making, reading, signing, importing and deleting keys."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.errors import OutcomeUnknownError, UsageError
from hsm_keys.signing.algorithms import KeyType, key_type_of, signature_length, verifies
from hsm_keys.stores.vault.error_mapping import VaultAnswer, VaultCall, field_of, garbled_answer
from hsm_keys.stores.vault.errors import VaultError, VaultKeyNotFoundError, VaultKeyUnsuitableError
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.vault.connection import VaultConnection

__all__ = ["Transit", "TransitKey"]

_SIGNATURE_PARTS: Final = 3  # vault:v1:BASE64
_PSS: Final = ',"hash_algorithm":"sha2-256","signature_algorithm":"pss","salt_length":"hash"'
"""For RSA. The default salt is as long as fits: 222 bytes for RSA-2048, where Kalshi takes 32 alone."""


@dataclass(frozen=True, slots=True)
class TransitKey:
    """A key as the engine describes it.

    Args:
        name: The engine's name for it.
        version: Which of its versions is meant.
        public_key: The public half of that version.
        said: What the engine says of it.
    """

    name: str
    version: int
    public_key: PublicKey
    said: dict[str, Any] = field(repr=False)

    @property
    def imported(self) -> bool:
        """Whether it was made elsewhere."""
        return self.said.get("imported_key") is True

    @property
    def created(self) -> str | None:
        """When that version was made, in ISO 8601."""
        version = (self.said.get("keys") or {}).get(str(self.version))
        created = version.get("creation_time") if isinstance(version, dict) else None
        return created if isinstance(created, str) else None


class Transit:
    """One Transit engine.

    Args:
        connection: Gives this process's connection.
        mount: Where the engine is mounted.
    """

    def __init__(self, connection: Callable[[], VaultConnection], mount: str) -> None:
        self._connection = connection
        self.mount: Final = mount

    def read(self, name: str, label: str, version: int | None = None) -> TransitKey | None:
        """Return a key; None if there is none of that name.

        Args:
            name: The engine's name for it.
            label: What people call it.
            version: The version that is meant; None for the newest.

        Raises:
            VaultKeyUnsuitableError: If it can't sign Kalshi requests, or that version is gone.
            VaultError: If the server refuses.
            NetworkError: If it doesn't answer.
        """
        call = VaultCall(f"read the key {shown(label)}", "GET", f"{self.mount}/keys/{name}")
        answer = self._connection().ask(call)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        _check(answer, call)
        wanted = version or field_of(answer, "latest_version", int, call)
        return TransitKey(name, wanted, _public_key(answer, call, label, wanted), answer.data)

    def create(self, name: str, label: str, key_type: KeyType) -> None:
        """Make a key that can't be taken out; one that is there already is left as it is."""
        call = VaultCall(f"make the key {shown(label)}", "POST", f"{self.mount}/keys/{name}", changes=True)
        _check(self._connection().ask(call, {"type": str(key_type)}), call)

    def delete(self, name: str, label: str) -> None:
        """Delete a key; that it is gone already is as good."""
        config = VaultCall(
            f"allow that {shown(label)} is deleted", "POST", f"{self.mount}/keys/{name}/config", changes=True
        )
        call = VaultCall(f"delete the key {shown(label)}", "DELETE", f"{self.mount}/keys/{name}", changes=True)
        connection = self._connection()
        if connection.ask(config, {"deletion_allowed": True}).status < HTTPStatus.BAD_REQUEST:
            connection.ask(call)
        there = VaultCall(f"read the key {shown(label)}", "GET", f"{self.mount}/keys/{name}")
        if connection.ask(there).status != HTTPStatus.NOT_FOUND:
            raise VaultError(
                f"the key {shown(label)} ({self.mount}/keys/{name}) is still there, though it was to be deleted",
                hint="look at it with `bao read`, and run the same command again",
            )

    def wrapping_key(self) -> str:
        """Return the public half, as PEM, of the key that wraps what is imported."""
        call = VaultCall("get the key that wraps what is imported", "GET", f"{self.mount}/wrapping_key")
        answer = self._connection().ask(call)
        _check(answer, call)
        pem: str = field_of(answer, "public_key", str, call)
        return pem

    def import_key(self, name: str, label: str, key_type: KeyType, wrapped: bytes) -> None:
        """Import a private key that was wrapped; where the answer is lost, look whether the key is there."""
        call = VaultCall(f"import the key {shown(label)}", "POST", f"{self.mount}/keys/{name}/import", changes=True)
        body = {"ciphertext": b64encode(wrapped).decode(), "type": str(key_type), "hash_function": "SHA256"}
        try:
            _check(self._connection().ask(call, body), call)
        except OutcomeUnknownError:
            if self.read(name, label) is None:
                raise

    def signer(self, key: TransitKey, label: str) -> Callable[[bytes], bytes]:
        """Return what signs messages with a key, and verifies each signature."""
        call = VaultCall(f"sign with the key {shown(label)}", "POST", f"{self.mount}/sign/{key.name}")
        public_key, version = key.public_key, key.version
        pss = "" if isinstance(public_key, Ed25519PublicKey) else _PSS

        def sign(message: bytes) -> bytes:
            content = f'{{"input":"{b64encode(message).decode()}","key_version":{version}{pss}}}'.encode()
            return self._connection().sign(
                call, content, lambda answer: _signature(answer, call, public_key, version, message)
            )

        return sign


def _check(answer: VaultAnswer, call: VaultCall) -> None:
    if answer.status == HTTPStatus.NOT_FOUND:
        raise VaultError(
            f"Vault at {answer.address} has nothing at {call.path} (asked to {call.what})",
            hint="check namespace and mount in the store's URI: `bao secrets list`; `bao secrets enable transit`",
        )
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise VaultError(
            f"Vault at {answer.address} refuses to {call.what} ({answer.status})", hint="see the server's log"
        )


def _public_key(answer: VaultAnswer, call: VaultCall, label: str, version: int) -> PublicKey:
    kind = field_of(answer, "type", str, call)
    if kind not in {str(key_type) for key_type in KeyType} or answer.data.get("derived") is True:
        raise VaultKeyUnsuitableError(
            f"the key {shown(label)} can't sign Kalshi requests: its type is {shown(kind)}"
            + (", derived" if answer.data.get("derived") is True else ""),
            hint=f"Kalshi takes {', '.join(KeyType)}; hsm-keys enroll makes one",
        )
    content = field_of(answer, "keys", dict, call).get(str(version))
    text = content.get("public_key") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise VaultKeyUnsuitableError(
            f"version {version} of the Transit key of {shown(label)} is gone",
            hint="somebody trimmed or archived it: enroll a new key, and revoke the API key",
        )
    try:
        loaded: Any = (
            Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
            if kind == KeyType.ED25519
            else load_pem_public_key(text.encode())
        )
        if key_type_of(loaded) == kind:
            return loaded  # type: ignore[no-any-return]  # key_type_of has told its type
    except (ValueError, TypeError, UnsupportedAlgorithm, UsageError):
        pass
    raise garbled_answer(call, answer, f"holds no public key of the type {kind}")


def _signature(answer: VaultAnswer, call: VaultCall, public_key: PublicKey, version: int, message: bytes) -> bytes:
    """Return the signature of an answer, verified as strictly as Kalshi does it."""
    if answer.status >= HTTPStatus.BAD_REQUEST:
        if answer.status == HTTPStatus.NOT_FOUND or answer.says("not found"):
            raise VaultKeyNotFoundError(
                f"the Transit key is gone (Vault at {answer.address} was asked to {call.what})",
                hint="`hsm-keys list` shows the keys",
            )
        raise VaultError(
            f"Vault at {answer.address} refuses to {call.what} ({answer.status})",
            hint="its versions may have been archived or trimmed: hsm-keys show tells more",
        )
    text = answer.data.get("signature")
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) != _SIGNATURE_PARTS or parts[1] != f"v{version}":
        raise garbled_answer(call, answer, "has no signature of the version that was asked for")
    try:
        signature = b64decode(parts[2], validate=True)
    except ValueError:
        raise garbled_answer(call, answer, "holds a signature that isn't base64") from None
    if len(signature) != signature_length(public_key):
        raise garbled_answer(call, answer, f"holds {len(signature)} bytes instead of a signature")
    if not verifies(public_key, message, signature):
        raise garbled_answer(call, answer, "holds a signature that doesn't verify with the key's public half")
    return signature
