"""The signing path against a KMS that fails: what reaches the server, what comes out, and how soon."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import traceback
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsm_keys.errors import AwsError, HsmKeysError, NetworkError, SigningError, UsageError
from hsm_keys.inspecting.custody import examine_custody, prove_custody
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import (
    AwsAccessDeniedError,
    AwsCredentialsError,
    AwsThrottledError,
    AwsUnavailableError,
    KmsGarbledAnswerError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsKeyStateError,
    KmsKeyUnsuitableError,
)
from tests.support import ministack
from tests.support.kms_faults import Body, Changed, Cut, Fault, FaultyKms, Hang, Refuse, Reset, Slow, arn_in, rsa_key
from tests.support.ports import free_port
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys.stores.awskms.store import AwsKmsKey, AwsKmsStore

URI = "awskms:///?region=us-east-1"
ACCESS_KEY = "AKIACANARY0000000001"
SECRET = "aws-secret-canary-4711"
MESSAGE = b"1703123456789GET/trade-api/v2/portfolio/balance"


@pytest.fixture
def store(kms: FaultyKms) -> Iterator[AwsKmsStore]:
    with open_kms(URI + "&budget-ms=4000") as opened:  # so that a busy machine doesn't use it up
        yield opened


@pytest.fixture
def key(store: AwsKmsStore) -> AwsKmsKey:
    return store.key("prod")


def failure_of(key: AwsKmsKey, message: bytes = MESSAGE) -> HsmKeysError:
    with pytest.raises(HsmKeysError) as caught:
        key.sign(message)
    return caught.value


def test_a_signature_is_asked_for_raw_and_verifies_elsewhere(key: AwsKmsKey, kms: FaultyKms, tmp_path: Path) -> None:
    signature = key.sign(MESSAGE)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    rsa_key().public_key().verify(signature, MESSAGE, pss, hashes.SHA256())
    assert openssl_verifies(tmp_path, key.public_pem(), MESSAGE, signature)
    (seen,) = kms.of("Sign")
    assert b64decode(seen.parameters.pop("Message")) == MESSAGE
    assert seen.parameters == {
        "KeyId": arn_in("us-east-1"),
        "MessageType": "RAW",
        "SigningAlgorithm": "RSASSA_PSS_SHA_256",
    }


def test_an_ed25519_signature_is_asked_for_raw_and_verifies_elsewhere(
    kms: FaultyKms, store: AwsKmsStore, tmp_path: Path
) -> None:
    kms.private_key, kms.spec = Ed25519PrivateKey.generate(), "ECC_NIST_EDWARDS25519"
    key = store.key("prod")
    assert openssl_verifies(tmp_path, key.public_pem(), MESSAGE, key.sign(MESSAGE))
    (seen,) = kms.of("Sign")
    assert (seen.parameters["MessageType"], seen.parameters["SigningAlgorithm"]) == ("RAW", "ED25519_SHA_512")


def test_the_public_half_is_read_once(key: AwsKmsKey, kms: FaultyKms) -> None:
    for _ in range(3):
        key.sign(MESSAGE)
        key.public_pem()
    assert [len(kms.of(operation)) for operation in ("GetPublicKey", "ListResourceTags", "Sign")] == [1, 1, 3]


@pytest.mark.parametrize("size", [0, 4096])
def test_a_message_of_up_to_4096_bytes_is_signed(key: AwsKmsKey, size: int) -> None:
    assert len(key.sign(b"x" * size)) == 256


def test_a_longer_message_is_refused_before_it_is_sent(key: AwsKmsKey, kms: FaultyKms) -> None:
    with pytest.raises(UsageError, match="4096"):
        key.sign(b"x" * 4097)
    assert kms.of("Sign") == []


def test_only_bytes_are_signed(key: AwsKmsKey) -> None:
    with pytest.raises(TypeError, match="bytes"):
        key.sign("text")  # type: ignore[arg-type]  # what a caller gets wrong


def flipped(answer: dict[str, Any]) -> None:
    signature = bytearray(b64decode(answer["Signature"]))
    signature[7] ^= 1
    answer["Signature"] = b64encode(signature).decode()


def shortened(answer: dict[str, Any]) -> None:
    answer["Signature"] = b64encode(b64decode(answer["Signature"])[:-1]).decode()


def of_another_key(answer: dict[str, Any]) -> None:
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    other = rsa.generate_private_key(65537, 2048)
    answer["Signature"] = b64encode(other.sign(MESSAGE, pss, hashes.SHA256())).decode()


def with_the_longest_salt(answer: dict[str, Any]) -> None:
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=222)
    answer["Signature"] = b64encode(rsa_key().sign(MESSAGE, pss, hashes.SHA256())).decode()


def over_the_digest(answer: dict[str, Any]) -> None:
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(MESSAGE)
    answer["Signature"] = b64encode(rsa_key().sign(digest.finalize(), pss, hashes.SHA256())).decode()


def a_list(answer: dict[str, Any]) -> None:
    answer["Signature"] = ["x"]


TWICE: dict[str, tuple[Fault, type[HsmKeysError], str]] = {
    "throttled": (Refuse("ThrottlingException"), AwsThrottledError, r"Cryptographic operations \(RSA\) request rate"),
    "429": (Refuse("", status=429), AwsThrottledError, "quota"),
    "internal": (Refuse("KMSInternalException", status=500), AwsUnavailableError, "KMSInternalException"),
    "dependency": (Refuse("DependencyTimeoutException", status=503), AwsUnavailableError, "KMS itself failed"),
    "bad gateway": (Refuse("", status=502), AwsUnavailableError, "KMS itself failed"),
    "hangs": (Hang(), NetworkError, "didn't answer in time"),
    "resets": (Reset(), NetworkError, "closed the connection"),
    "cut": (Cut(), KmsGarbledAnswerError, "no Signature"),
    "html": (Body(b"<html>Sign in to the network</html>"), KmsGarbledAnswerError, "answer to Sign"),
    "empty": (Body(b""), KmsGarbledAnswerError, "has no Signature"),
    "no object": (Body(b"[1, 2]"), KmsGarbledAnswerError, "answer to Sign"),
    "null": (Body(b"null"), KmsGarbledAnswerError, "answer to Sign"),
    "not utf-8": (Body(b'{"Signature": "\xff\xfe"}'), KmsGarbledAnswerError, "UnicodeDecodeError"),
    "not base64": (Body(b'{"Signature": "A"}'), KmsGarbledAnswerError, "answer to Sign"),
    "no signature": (Changed(lambda answer: answer.pop("Signature")), KmsGarbledAnswerError, "no Signature"),
    "a list": (Changed(a_list), KmsGarbledAnswerError, "answer to Sign"),
    "short": (Changed(shortened), KmsGarbledAnswerError, "255 bytes instead of a signature of 256"),
    "flipped": (Changed(flipped), KmsGarbledAnswerError, "doesn't verify"),
    "another key": (Changed(of_another_key), KmsGarbledAnswerError, "doesn't verify"),
    "longest salt": (Changed(with_the_longest_salt), KmsGarbledAnswerError, "doesn't verify"),
    "digest": (Changed(over_the_digest), KmsGarbledAnswerError, "doesn't verify"),
}


@pytest.mark.parametrize("name", TWICE)
def test_what_may_pass_is_tried_twice_inside_the_budget(key: AwsKmsKey, kms: FaultyKms, name: str) -> None:
    fault, kind, words = TWICE[name]
    kms.always("Sign", fault)
    error = failure_of(key)
    assert type(error) is kind
    assert error.exit_code == (7 if kind is NetworkError else 8)
    assert error.hint
    with pytest.raises(kind, match=words):
        raise error
    assert "tried 2 times in " in error.message
    assert len(kms.of("Sign")) == 2


@pytest.mark.parametrize("name", TWICE)
def test_what_passes_costs_one_more_attempt(key: AwsKmsKey, kms: FaultyKms, name: str, tmp_path: Path) -> None:
    kms.fault("Sign", TWICE[name][0])
    assert openssl_verifies(tmp_path, key.public_pem(), MESSAGE, key.sign(MESSAGE))
    assert len(kms.of("Sign")) == 2


ARN = arn_in("us-east-1")
DENIAL = (
    "User: arn:aws:sts::111122223333:assumed-role/trader/i-1 is not authorized to perform: kms:Sign "
    f"on resource: {ARN} "
    "because no identity-based policy allows the kms:Sign action"
)
ONCE: dict[str, tuple[Refuse, type[AwsError], str, str]] = {
    "denied": (
        Refuse("AccessDeniedException", DENIAL),
        AwsAccessDeniedError,
        rf"denies kms:Sign on {ARN} to arn:aws:sts::111122223333:assumed-role/trader/i-1 because no identity-based",
        "kms policy --for sign",
    ),
    "denied without words": (
        Refuse("AccessDeniedException", "no"),
        AwsAccessDeniedError,
        "denies kms:Sign on the key 'prod'",
        "allow kms:Sign",
    ),
    "disabled": (Refuse("DisabledException", f"{ARN} is disabled."), KmsKeyDisabledError, "disabled", "enable-key"),
    "pending": (
        Refuse("KMSInvalidStateException", f"{ARN} is pending deletion."),
        KmsKeyPendingDeletionError,
        "pending deletion",
        "cancel-key-deletion",
    ),
    "pending, in the other code": (
        Refuse("DisabledException", f"{ARN} is pending deletion."),
        KmsKeyPendingDeletionError,
        "pending deletion",
        "cancel-key-deletion",
    ),
    "creating": (Refuse("KMSInvalidStateException", f"{ARN} is creating."), KmsKeyStateError, "state", "show prod"),
    "expired": (
        Refuse("ExpiredTokenException", "The security token included in the request is expired"),
        AwsCredentialsError,
        "have expired",
        "log in again",
    ),
    "unknown": (
        Refuse("UnrecognizedClientException", "The security token included in the request is invalid."),
        AwsCredentialsError,
        "doesn't accept these credentials",
        "get-caller-identity",
    ),
    "bad secret": (
        Refuse("InvalidSignatureException", "The request signature we calculated does not match"),
        AwsCredentialsError,
        "doesn't accept these credentials",
        "get-caller-identity",
    ),
    "clock": (
        Refuse("InvalidSignatureException", "Signature expired: 20261123T000000Z is now earlier than 20261123T001000Z"),
        AwsCredentialsError,
        "too old or too new",
        "clock",
    ),
    "gone": (
        Refuse("NotFoundException", f"Key '{ARN}' does not exist"),
        KmsKeyNotFoundError,
        "no key 'prod'",
        "Region",
    ),
    "usage": (Refuse("InvalidKeyUsageException"), KmsKeyUnsuitableError, "InvalidKeyUsageException", "SIGN_VERIFY"),
    "odd": (Refuse("SomethingNewException", "canary-text"), AwsError, "SomethingNewException", ""),
    "unreadable": (Refuse("<b>\n", "canary-text"), AwsError, "unreadable error", ""),
}


@pytest.mark.parametrize("name", ONCE)
def test_a_refusal_is_told_at_once_and_not_repeated(key: AwsKmsKey, kms: FaultyKms, name: str) -> None:
    fault, kind, words, hint = ONCE[name]
    kms.always("Sign", fault)
    error = failure_of(key)
    assert type(error) is kind
    assert error.exit_code == 8
    with pytest.raises(kind, match=words):
        raise error
    assert hint in error.hint
    assert "canary" not in str(error)
    assert len(kms.of("Sign")) == 1


def test_a_garbled_answer_is_a_signing_error_too(key: AwsKmsKey, kms: FaultyKms) -> None:
    kms.always("Sign", Body(b"{}"))
    with pytest.raises(SigningError):
        key.sign(MESSAGE)


@pytest.mark.parametrize(("query", "attempts", "budget_s"), [("", 2, 2.0), ("&attempts=1&budget-ms=300", 1, 0.3)])
def test_attempts_and_budget_are_the_uris(kms: FaultyKms, query: str, attempts: int, budget_s: float) -> None:
    with open_kms(URI + query) as store:
        key = store.key("prod")
        kms.always("Sign", Hang())
        failure_of(key)
        caller = store.caller()
        client = caller._connection.client(caller.regions[0], caller._signing.patience)
    assert len(kms.of("Sign")) == attempts
    waits = client.meta.config.connect_timeout + client.meta.config.read_timeout
    assert 0.8 * budget_s < attempts * waits < budget_s


def test_awss_own_retry_settings_do_not_multiply_ours(kms: FaultyKms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    with open_kms(URI) as store:
        key = store.key("prod")
        kms.always("Sign", Refuse("ThrottlingException"))
        failure_of(key)
    assert len(kms.of("Sign")) == 2


def test_an_endpoint_where_nobody_listens_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ministack.credentials(monkeypatch, f"http://127.0.0.1:{free_port()}")
    with (
        open_kms(URI) as store,
        pytest.raises(NetworkError, match=r"can't be reached \(connection refused\); GetPublicKey was not sent"),
    ):
        store.key("prod")


LOOKING: list[tuple[str, Callable[[AwsKmsStore, AwsKmsKey], object]]] = [
    ("GetPublicKey", lambda store, _key: store.key("prod")),
    ("ListResourceTags", lambda store, _key: store.key("prod")),
    ("ListAliases", lambda store, _key: store.keys()),
    ("DescribeKey", lambda _store, key: key.attributes()),
    ("DescribeKey", lambda _store, key: key.custody_facts()),
]


@pytest.mark.parametrize(("operation", "look"), LOOKING)
def test_only_signatures_have_the_short_budget(
    kms: FaultyKms, operation: str, look: Callable[[AwsKmsStore, AwsKmsKey], object]
) -> None:
    with open_kms("awskms:///?region=us-east-1&budget-ms=100&attempts=1") as store:
        key = store.key("prod")
        kms.always(operation, Slow(0.3))
        assert look(store, key)
        kms.always("Sign", Slow(0.3))
        with pytest.raises(NetworkError, match="didn't answer in time"):
            key.sign(MESSAGE)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("host", ["kms.us-east-1.amazonaws.com", "10.0.0.5:4566", "localhost.example", "[fd00::1]:80"])
def test_plain_http_is_for_loopback_alone(monkeypatch: pytest.MonkeyPatch, variable: str, host: str) -> None:
    ministack.credentials(monkeypatch, "")
    monkeypatch.delenv("AWS_ENDPOINT_URL_KMS")
    monkeypatch.setenv(variable, f"http://{host}")
    with pytest.raises(UsageError, match="neither https nor loopback"):
        open_kms(URI)


def test_no_proxy_reads_what_goes_to_loopback(kms: FaultyKms, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    with open_kms(URI) as store:
        assert len(store.key("prod").sign(MESSAGE)) == 256


@pytest.mark.parametrize(
    "body", [b"{}", b"", b"garbage", b'{"KeyId": "x", "KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}']
)
def test_a_garbled_public_key_is_refused(kms: FaultyKms, store: AwsKmsStore, body: bytes) -> None:
    kms.always("GetPublicKey", Body(body))
    with pytest.raises(KmsGarbledAnswerError):
        store.key("prod")


def test_a_public_key_of_another_type_than_named_is_refused(kms: FaultyKms, store: AwsKmsStore) -> None:
    kms.spec = "RSA_4096"
    with pytest.raises(KmsGarbledAnswerError, match="no public key of the type rsa-4096"):
        store.key("prod")


def test_no_log_holds_a_signature(key: AwsKmsKey, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        signature = key.sign(MESSAGE)
    assert "botocore.parsers" in {record.name for record in caplog.records}  # it did log the answer
    assert b64encode(signature).decode() not in caplog.text
    assert "[hidden: it holds a signature]" in caplog.text


@pytest.mark.parametrize("name", [*TWICE, *ONCE])
def test_no_error_holds_credentials_or_a_signature(
    key: AwsKmsKey, kms: FaultyKms, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    kms.always("Sign", (TWICE | ONCE)[name][0])
    with caplog.at_level(logging.INFO):
        error = failure_of(key)
    assert error.__context__ is None
    assert error.__cause__ is None
    text = str(error) + repr(error) + error.hint + caplog.text + "".join(traceback.format_exception(error))
    for secret in (ACCESS_KEY, SECRET, "AWS4-HMAC", "Credential="):
        assert secret not in text


def test_many_threads_share_one_client_and_each_gets_its_own_signature(key: AwsKmsKey, tmp_path: Path) -> None:
    signatures: dict[bytes, bytes] = {}

    def work(number: int) -> None:
        message = b"message %d" % number
        signatures[message] = key.sign(message)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signatures) == 32  # each was verified against its own message by the key itself
    assert openssl_verifies(tmp_path, key.public_pem(), b"message 31", signatures[b"message 31"])


FORKS = """
import os
from hsm_keys.inspecting.custody import examine_custody, prove_custody
from hsm_keys.stores.awskms import open_kms
with open_kms("awskms:///?region=us-east-1") as store:
    key = store.key("prod")
    key.sign(b"parent")
    mine = store.caller()
    child = os.fork()
    if child == 0:
        fine = len(key.sign(b"child")) == 256 and store.caller() is not mine
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    key.sign(b"parent again")
    assert store.caller() is mine
"""


def test_a_forked_child_signs_over_connections_of_its_own(kms: FaultyKms) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", FORKS], env=dict(os.environ), check=True, timeout=60)
    assert [b64decode(seen.parameters["Message"]) for seen in kms.of("Sign")] == [b"parent", b"child", b"parent again"]
    ports = [seen.port for seen in kms.of("Sign")]
    assert ports[0] == ports[2] != ports[1]


def test_a_key_whose_state_hides_its_public_half_still_shows_its_deletion_date(
    kms: FaultyKms, store: AwsKmsStore
) -> None:
    kms.always("GetPublicKey", Refuse("KMSInvalidStateException", f"{ARN} is pending deletion."))
    kms.metadata = {"KeyState": "PendingDeletion", "DeletionDate": 1_800_000_000}
    key = store.key("prod")
    assert (key.name, key.api_key_id, key.key_type) == ("prod", "key-id-1", "rsa-2048")
    shown = key.attributes()
    assert (shown["key_state"], shown["deletion_date"]) == ("PendingDeletion", "2027-01-15T08:00:00+00:00")
    for use in (key.public_key, lambda: key.sign(MESSAGE)):
        with pytest.raises(KmsKeyPendingDeletionError, match="pending deletion"):
            use()
    assert kms.of("Sign") == []
    kms.always("GetPublicKey", None)
    assert len(key.sign(MESSAGE)) == 256  # saved meanwhile


def test_a_key_of_another_account_signs_though_its_tags_are_secret(kms: FaultyKms, store: AwsKmsStore) -> None:
    kms.always("ListResourceTags", Refuse("AccessDeniedException"))
    key = store.key(ARN)
    assert (key.name, key.api_key_id) == (ARN, None)
    assert key.signer(api_key_id="from-the-command-line").headers("GET", "/trade-api/v2/markets")
    with pytest.raises(AwsAccessDeniedError, match="kms:ListResourceTags"):
        store.key("prod")  # one of ours: what can't be read isn't taken for unregistered


def test_a_key_of_another_account_that_is_not_shared_says_so(kms: FaultyKms, store: AwsKmsStore) -> None:
    denial = DENIAL.replace("kms:Sign", "kms:GetPublicKey").replace("identity-based policy", "resource-based policy")
    kms.always("GetPublicKey", Refuse("AccessDeniedException", denial))
    with pytest.raises(AwsAccessDeniedError, match="no resource-based policy allows the kms:GetPublicKey") as caught:
        store.key(ARN)
    assert "key policy" in caught.value.hint


def test_custody_needs_a_signature_or_without_permission_to_sign_kms_metadata(
    kms: FaultyKms, store: AwsKmsStore
) -> None:
    """A role that only looks may not sign; and nobody but KMS can change what it says of a key's public half."""
    report = examine_custody(store.key("prod")).as_dict()
    assert (report["signature_verified"], len(kms.of("Sign"))) == (True, 1)
    kms.always("Sign", Refuse("AccessDeniedException", DENIAL))
    report = examine_custody(store.key("prod")).as_dict()
    assert (report["verdict"], report["signature_verified"]) == ("in custody", None)
    assert any("not tried" in doubt and "kms:Sign" in doubt for doubt in report["unconfirmed"])
    with pytest.raises(AwsAccessDeniedError):
        prove_custody(store.key("prod"))  # what is to be registered has to sign
    kms.always("Sign", None)
    kms.always("GetPublicKey", Refuse("KMSInvalidStateException", f"{ARN} is disabled."))
    kms.metadata = {"KeyState": "Disabled"}
    assert examine_custody(store.key("prod")).as_dict()["signature_verified"] is None
