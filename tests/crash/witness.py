"""What there is in a store, read with python-pkcs11, botocore and urllib alone: no code under test is asked."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass

if TYPE_CHECKING:
    from tests.support.vault import Vault


@dataclass(frozen=True)
class Half:
    """A private half that can sign.

    Args:
        name: Its label, its alias below ``alias/hsm-keys/``, or its name in the entry; empty if it has none.
        bound: What its CKA_ID, behind the environment, or its tag says: an API key id in hexadecimal digits, or not.
        signature: Of the message that was asked for, in base64.
    """

    name: str
    bound: str
    signature: str


@dataclass(frozen=True)
class Contents:
    """What a store holds: private halves, and things that shouldn't be there."""

    halves: list[Half]
    litter: list[str]


def in_token(module: str, label: str, pin: str, message: str) -> dict[str, Any]:
    """Read a token; to be called in a process of its own. Returns the fields of ``Contents``."""
    token = pkcs11.lib(module).get_token(token_label=label)
    with token.open(user_pin=pin) as session:
        privates = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        halves = [
            {
                "name": private[Attribute.LABEL],
                "bound": bytes(private[Attribute.ID]).split(b":", 2)[-1].hex(),
                "signature": b64encode(_sign(private, message.encode())).decode(),
            }
            for private in privates
        ]
        labels = [private[Attribute.LABEL] for private in privates]
        litter = []
        for obj in session.get_objects():
            if obj[Attribute.CLASS] == ObjectClass.PRIVATE_KEY:
                continue
            if obj[Attribute.CLASS] == ObjectClass.PUBLIC_KEY and obj[Attribute.LABEL] in labels:
                labels.remove(obj[Attribute.LABEL])
            else:
                litter.append(f"{obj[Attribute.CLASS]} {obj[Attribute.LABEL]}")
        litter += [f"no public half of {label}" for label in labels]
    return {"halves": halves, "litter": litter}


def objects_in_token(module: str, label: str, pin: str) -> int:
    """Count the objects of a token that have their label; to be called in a process of its own."""
    with pkcs11.lib(module).get_token(token_label=label).open(user_pin=pin) as session:
        return sum(bool(obj[Attribute.LABEL]) for obj in session.get_objects())


def _sign(private: Any, message: bytes) -> bytes:
    if private[Attribute.KEY_TYPE] == pkcs11.KeyType.EC_EDWARDS:
        return bytes(private.sign(message, mechanism=Mechanism.EDDSA))
    parameter = (Mechanism.SHA256, pkcs11.MGF.SHA256, 32)
    return bytes(private.sign(message, mechanism=Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=parameter))


def in_kms(client: Any, message: str) -> Contents:
    """Read an account and Region through a botocore client. Keys whose deletion is scheduled are gone."""
    aliases = {}
    litter = []
    for alias in client.list_aliases()["Aliases"]:
        if alias["AliasName"].startswith("alias/hsm-keys/"):
            name = alias["AliasName"].removeprefix("alias/hsm-keys/").replace("/", "+")
            if alias["TargetKeyId"] in aliases:
                litter.append(f"a second alias {name}")
            aliases[alias["TargetKeyId"]] = name
    halves = []
    for key_id in (entry["KeyId"] for entry in client.list_keys()["Keys"]):
        state = client.describe_key(KeyId=key_id)["KeyMetadata"]
        name = aliases.pop(key_id, "")
        if state["KeyState"] == "Enabled":
            tags = {tag["TagKey"]: tag["TagValue"] for tag in client.list_resource_tags(KeyId=key_id)["Tags"]}
            if name and tags["hsm-keys:name"] != name:
                litter.append(f"{name} is tagged {tags['hsm-keys:name']}")
            ed25519 = state["KeySpec"] == "ECC_NIST_EDWARDS25519"
            signed = client.sign(
                KeyId=key_id,
                Message=message.encode(),
                MessageType="RAW",
                SigningAlgorithm="ED25519_SHA_512" if ed25519 else "RSASSA_PSS_SHA_256",
            )
            bound = tags.get("hsm-keys:api-key-id", "").replace("-", "")
            halves.append(Half(name, bound, b64encode(signed["Signature"]).decode()))
        elif name or state["KeyState"] != "PendingDeletion":
            litter.append(f"{state['KeyState']} {name}")
    litter += [f"an alias {name} without a key" for name in aliases.values()]
    return Contents(halves, litter)


def in_vault(vault: Vault, name: str, message: str) -> Contents:
    """Read two engines. A record of a key that is being destroyed, and gone, is nothing: the next run takes it out."""
    try:
        records = dict(vault.entry(name)["keys"])
    except HTTPError:
        records = {}
    halves = []
    for transit_key in vault.transit_keys():
        label = next((label for label, record in records.items() if record["transit_key"] == transit_key), "")
        record = records.pop(label, {})
        body = {
            "input": b64encode(message.encode()).decode(),
            "hash_algorithm": "sha2-256",
            "signature_algorithm": "pss",
            "salt_length": "hash",
            "key_version": record.get("version", 1),
        }
        signature = vault.ask("POST", f"{vault.mount}/sign/{transit_key}", body)["data"]["signature"].split(":")[2]
        named = "" if record.get("phase") == "making" else label
        halves.append(Half(named, record.get("api_key_id", "").replace("-", ""), signature))
    left = {label: record.get("phase") for label, record in records.items()}
    return Contents(halves, [f"a record of {label} without a key" for label in left if left[label] != "destroying"])
