"""Key objects that hsm-keys itself would never make, put into a token through its open session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11.constants import Attribute, MechanismFlag
from pkcs11.mechanisms import KeyType
from pkcs11.util.rsa import decode_rsa_private_key, decode_rsa_public_key

from hsm_keys.stores.pkcs11.halves import public_half
from hsm_keys.stores.pkcs11.marks import minted_id
from hsm_keys.stores.pkcs11.store import Pkcs11Store

if TYPE_CHECKING:
    from hsm_keys.stores.base import KeyStore


OUR_MARK = b"kalshi:minted:" + b"x" * 20
"""What makes a key ours, while it is being made; where CKA_ID is fixed, for good."""


def session_of(store: KeyStore) -> Any:
    assert isinstance(store, Pkcs11Store)
    return store._connection.login.session


def make_extractable(store: KeyStore, name: str) -> None:
    session_of(store).generate_keypair(
        KeyType.RSA,
        2048,
        store=True,
        label=name,
        id=OUR_MARK,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True},
    )


def make_twin(store: KeyStore, name: str, mark: bytes | None = None) -> bytes:
    """Make a further pair, and return its CKA_ID; without one, that of a pair that hsm-keys has made."""
    pair = session_of(store).generate_keypair(
        KeyType.RSA, 2048, store=True, label=name, id=OUR_MARK, capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY
    )
    half = public_half(pair[0])
    assert half is not None
    cka_id = mark or minted_id(half)
    for each in pair:
        each[Attribute.ID] = cka_id
    return cka_id


def make_decrypting(store: KeyStore, name: str) -> None:
    session_of(store).generate_keypair(
        KeyType.RSA, 2048, store=True, label=name, id=b"foreign", capabilities=MechanismFlag.DECRYPT
    )


def import_pair(store: KeyStore, name: str, *, sensitive: bool = True) -> rsa.RSAPrivateKey:
    """Put a key that was made outside into the token, as `C_CreateObject` does it."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    common = {Attribute.LABEL: name, Attribute.ID: b"imported", Attribute.TOKEN: True}
    session = session_of(store)
    session.create_object(
        {
            **decode_rsa_private_key(private, MechanismFlag.SIGN),
            **common,
            Attribute.SENSITIVE: sensitive,
            Attribute.EXTRACTABLE: not sensitive,
            Attribute.PRIVATE: True,
        }
    )
    session.create_object({**decode_rsa_public_key(public, MechanismFlag.VERIFY), **common})
    return key
