"""Somebody who reaches a token and doesn't know its PIN: what PKCS#11 lets them write (v2.40, section 2.6.1)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import KeyType, Mechanism

from hsm_keys.signing.algorithms import PublicKey, public_key_pem
from tests.support import fork_server

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

__all__ = ["plant_pair", "plant_public_half", "remove_public_half"]

_ED25519 = bytes.fromhex("06032b6570")
_POINT = bytes.fromhex("0420")


def plant_public_half(token: TestToken, name: str, *, replace: bool) -> str:
    """Write another public object with the label and CKA_ID of a pair, and return its PEM.

    Args:
        token: The token.
        name: The pair's label.
        replace: Whether to destroy the right one.
    """
    return _run("_plant_public_half", token, name, replace)


def remove_public_half(token: TestToken, name: str) -> str:
    """Destroy the public object of a pair; there is no PEM."""
    return _run("_remove_public_half", token, name)


def plant_pair(token: TestToken, name: str, mark: bytes) -> str:
    """Have the token make a pair that takes no PIN to be used, and return its public half's PEM.

    Args:
        token: The token.
        name: The label.
        mark: The CKA_ID.
    """
    return _run("_plant_pair", token, name, mark.hex())


def _run(function: str, token: TestToken, *arguments: object) -> str:
    """Run a function of this module in a process of its own, whose login is nobody else's: there is none."""
    done = fork_server.run(
        f"tests.support.intruder:{function}", token.module, token.label, *arguments, environment={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _session(module: str, label: str) -> Any:
    return pkcs11.lib(module).get_token(token_label=label).open(rw=True)


def _public(session: Any, name: str) -> Any:
    (public,) = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: name})
    return public


def _remove_public_half(module: str, label: str, name: str) -> None:
    with _session(module, label) as session:
        _public(session, name).destroy()


def _plant_public_half(module: str, label: str, name: str, replace: bool) -> None:
    with _session(module, label) as session:
        right = _public(session, name)
        kind, cka_id = right[Attribute.KEY_TYPE], right[Attribute.ID]
        if replace:
            right.destroy()
        half: PublicKey
        if kind == KeyType.RSA:
            half = rsa.generate_private_key(65537, 2048).public_key()
            numbers = half.public_numbers()
            parts = {
                Attribute.MODULUS: numbers.n.to_bytes(256, "big"),
                Attribute.PUBLIC_EXPONENT: numbers.e.to_bytes(3, "big"),
            }
        else:
            half = Ed25519PrivateKey.generate().public_key()
            parts = {Attribute.EC_PARAMS: _ED25519, Attribute.EC_POINT: _POINT + half.public_bytes_raw()}
        named = {Attribute.TOKEN: True, Attribute.LABEL: name, Attribute.ID: cka_id, Attribute.VERIFY: True}
        session.create_object({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: kind, **named, **parts})
    sys.stdout.write(public_key_pem(half))


def _plant_pair(module: str, label: str, name: str, mark: str) -> None:
    with _session(module, label) as session:
        curve = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519}, local=True)
        public, _ = curve.generate_keypair(
            mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
            store=True,
            label=name,
            id=bytes.fromhex(mark),
            capabilities=MechanismFlag.SIGN,
            private_template={Attribute.PRIVATE: False, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )
        point = public[Attribute.EC_POINT].removeprefix(_POINT)
    sys.stdout.write(public_key_pem(Ed25519PublicKey.from_public_bytes(point)))
