"""Vault: the double and OpenBao, asked by the same requests."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.stores.vault.error_mapping import VaultCall
from hsm_keys.stores.vault.errors import VaultDownError

if TYPE_CHECKING:
    from hsm_keys.stores.vault.error_mapping import VaultAnswer
    from tests.simulation.contract.conftest import Engines

MESSAGE = b64encode(b"text").decode()
ED25519 = {"type": "ed25519"}


def ask(engines: Engines, method: str, path: str, body: Any = None) -> VaultAnswer:
    """Ask; a path that begins with ``keys`` and the like is Transit's, all others KV's."""
    kv = path.startswith(("data/", "metadata/"))
    call = VaultCall("try it", method, f"{engines.kv if kv else engines.transit}/{path}", changes=method == "POST")
    return engines.connection.ask(call, body)


def write(engines: Engines, name: str, cas: int, content: Any) -> VaultAnswer:
    return ask(engines, "POST", f"data/hsm-keys/{name}", {"options": {"cas": cas}, "data": content})


def test_an_entry_is_written_where_nobody_else_has_written(engines: Engines) -> None:
    assert ask(engines, "GET", "data/hsm-keys/prod").status == 404
    assert ask(engines, "LIST", "metadata/hsm-keys/").status == 404
    first = write(engines, "prod", 0, {"keys": {"prod": {"a": 1}}})
    assert (first.status, first.data["version"]) == (200, 1)
    for cas in (0, 2):
        refused = write(engines, "prod", cas, {"keys": {}})
        assert refused.status == 400
        assert refused.says("check-and-set")
    assert write(engines, "prod", 1, {"keys": {}}).data["version"] == 2
    read = ask(engines, "GET", "data/hsm-keys/prod")
    assert (read.status, read.data["data"], read.data["metadata"]["version"]) == (200, {"keys": {}}, 2)


def test_a_first_entry_is_refused_with_a_version(engines: Engines) -> None:
    refused = write(engines, "prod", 1, {"keys": {}})
    assert refused.status == 400
    assert refused.says("check-and-set")
    assert ask(engines, "GET", "data/hsm-keys/prod").status == 404


def test_entries_are_listed_by_name(engines: Engines) -> None:
    for name in ("prod", "bot", "a.b"):
        write(engines, name, 0, {"keys": {}})
    assert ask(engines, "LIST", "metadata/hsm-keys/").data["keys"] == ["a.b", "bot", "prod"]


def test_a_key_is_made_once_and_described(engines: Engines) -> None:
    assert ask(engines, "GET", "keys/one").status == 404
    assert ask(engines, "POST", "keys/one", ED25519).status == 200
    said = ask(engines, "GET", "keys/one").data
    again = ask(engines, "POST", "keys/one", ED25519)
    assert again.status == 200
    assert ask(engines, "GET", "keys/one").data["keys"] == said["keys"]
    expected = {
        "type": "ed25519",
        "latest_version": 1,
        "exportable": False,
        "allow_plaintext_backup": False,
        "deletion_allowed": False,
        "imported_key": False,
        "derived": False,
    }
    assert {name: said.get(name, False) for name in expected} == expected
    assert len(b64decode(said["keys"]["1"]["public_key"])) == 32


def test_a_key_signs_and_one_that_is_not_there_does_not(engines: Engines) -> None:
    ask(engines, "POST", "keys/one", ED25519)
    body = {"input": MESSAGE, "key_version": 1}
    signed = ask(engines, "POST", "sign/one", body)
    version, signature = signed.data["signature"].removeprefix("vault:").split(":")
    assert (signed.status, version, len(b64decode(signature))) == (200, "v1", 64)
    refused = ask(engines, "POST", "sign/other", body)
    assert refused.status == 400
    assert refused.says("not found")


def test_a_key_is_deleted_once_that_was_allowed(engines: Engines) -> None:
    ask(engines, "POST", "keys/one", ED25519)
    assert ask(engines, "DELETE", "keys/one").status == 400
    assert ask(engines, "GET", "keys/one").status == 200
    assert ask(engines, "POST", "keys/one/config", {"deletion_allowed": True}).status == 200
    assert ask(engines, "GET", "keys/one").data["deletion_allowed"] is True
    assert ask(engines, "DELETE", "keys/one").status == 204
    assert ask(engines, "GET", "keys/one").status == 404
    assert ask(engines, "POST", "sign/one", {"input": MESSAGE}).status == 400


def test_of_a_key_that_is_not_there_nothing_is_configured_or_deleted(engines: Engines) -> None:
    assert ask(engines, "POST", "keys/one/config", {"deletion_allowed": True}).status == 400
    assert ask(engines, "DELETE", "keys/one").status == 400


def test_a_deleted_name_can_be_given_again_to_another_pair(engines: Engines) -> None:
    ask(engines, "POST", "keys/one", ED25519)
    before = ask(engines, "GET", "keys/one").data["keys"]["1"]["public_key"]
    ask(engines, "POST", "keys/one/config", {"deletion_allowed": True})
    ask(engines, "DELETE", "keys/one")
    ask(engines, "POST", "keys/one", ED25519)
    said = ask(engines, "GET", "keys/one").data
    assert (said["latest_version"], said["deletion_allowed"]) == (1, False)
    assert said["keys"]["1"]["public_key"] != before


def test_nothing_is_imported_over_a_key(engines: Engines) -> None:
    ask(engines, "POST", "keys/one", ED25519)
    assert load_pem_public_key(ask(engines, "GET", "wrapping_key").data["public_key"].encode()).key_size == 4096  # type: ignore[union-attr]
    body = {"ciphertext": MESSAGE, **ED25519, "hash_function": "SHA256"}
    with pytest.raises(VaultDownError):  # 500
        ask(engines, "POST", "keys/one/import", body)
    assert ask(engines, "GET", "keys/one").data["imported_key"] is False
