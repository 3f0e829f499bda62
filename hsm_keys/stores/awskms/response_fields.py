"""Reads fields of KMS's responses; a field that is missing or has another type raises an error that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_keys.signing.algorithms import KeyType, key_type_of, signature_length, verifies
from hsm_keys.stores.awskms.errors import KmsGarbledAnswerError, KmsKeyUnsuitableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.awskms.error_mapping import KmsCall

__all__ = ["SPECS", "field", "key_type_of_spec", "public_key_in", "signature_in"]

SPECS: Final = {
    KeyType.RSA_2048: "RSA_2048",
    KeyType.RSA_3072: "RSA_3072",
    KeyType.RSA_4096: "RSA_4096",
    KeyType.ED25519: "ECC_NIST_EDWARDS25519",
}
"""KMS's names of the key types (KeySpec)."""

_TYPES: Final = {spec: key_type for key_type, spec in SPECS.items()}


def field(answer: Mapping[str, Any], name: str, kind: type, call: KmsCall) -> Any:
    """Return a field of an answer.

    Raises:
        KmsGarbledAnswerError: If it isn't there, or of another kind.
    """
    value = answer.get(name)
    if not isinstance(value, kind):
        raise _garbled(call, f"has no {name}")
    return value


def _garbled(call: KmsCall, what: str) -> KmsGarbledAnswerError:
    return KmsGarbledAnswerError(
        f"the answer to {call} {what}",
        hint="it wasn't used; check that the endpoint (AWS_ENDPOINT_URL_KMS, a proxy) is really KMS, then try again",
    )


def key_type_of_spec(spec: str, usage: str, key: str) -> KeyType:
    """Return the type of a key that can sign for Kalshi.

    Raises:
        KmsKeyUnsuitableError: If it can't: another algorithm, or made for something else than signing.
    """
    key_type = _TYPES.get(spec)
    if key_type is None or usage != "SIGN_VERIFY":
        raise KmsKeyUnsuitableError(
            f"the key {key!r} can't sign Kalshi requests: it is {spec} for {usage}",
            hint=f"Kalshi takes {', '.join(SPECS.values())} for SIGN_VERIFY; type and usage are fixed when a key is "
            "made: hsm-keys --kms enroll makes one",
        )
    return key_type


def public_key_in(answer: Mapping[str, Any], key_type: KeyType, call: KmsCall) -> PublicKey:
    """Return the public half of a GetPublicKey answer.

    Raises:
        KmsGarbledAnswerError: If it is none, or not of the type that the answer names.
    """
    der = field(answer, "PublicKey", bytes, call)
    try:
        public_key: Any = load_der_public_key(der)
        if key_type_of(public_key) is key_type:
            return public_key  # type: ignore[no-any-return]  # key_type_of has told its type
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    raise _garbled(call, f"holds no public key of the type {key_type}")


def signature_in(answer: Mapping[str, Any], public_key: PublicKey, message: bytes, call: KmsCall) -> bytes:
    """Return the signature of a Sign answer, verified as strictly as Kalshi does it.

    Raises:
        KmsGarbledAnswerError: If there is none, or it isn't one of this message by this key.
    """
    signature = answer.get("Signature")
    if not isinstance(signature, bytes):
        raise _garbled(call, "has no Signature")
    if len(signature) != signature_length(public_key):
        raise _garbled(call, f"holds {len(signature)} bytes instead of a signature of {signature_length(public_key)}")
    if not verifies(public_key, message, signature):
        raise _garbled(call, "holds a signature that doesn't verify with the key's public half")
    return signature
