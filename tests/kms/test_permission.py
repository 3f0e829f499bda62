"""Asking KMS for leave to sign, against a server that answers dry runs as KMS's documentation has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.inspecting.doctor import check_store, outcome
from hsm_keys.signing.pem import PemKey
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import AwsAccessDeniedError, KmsKeyStateError
from hsm_keys.stores.awskms.permission import may_sign
from tests.support import ministack
from tests.support.kms_faults import FaultyKms, Refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.awskms.store import AwsKmsStore

DRY = Refuse("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.", 412)


@pytest.fixture
def store(kms: FaultyKms) -> Iterator[AwsKmsStore]:
    with open_kms(f"awskms:///alias/hsm-keys/prod?region={ministack.REGION}&budget-ms=1000") as opened:
        yield opened


def test_leave_is_asked_for_without_a_signature(store: AwsKmsStore, kms: FaultyKms) -> None:
    kms.fault("Sign", DRY)
    assert may_sign(store, store.key("prod"))
    (asked,) = kms.of("Sign")
    assert asked.parameters["DryRun"] is True
    assert asked.parameters["SigningAlgorithm"] == "RSASSA_PSS_SHA_256"
    assert asked.parameters["MessageType"] == "RAW"


def test_a_server_that_knows_no_dry_runs_has_signed(store: AwsKmsStore, kms: FaultyKms) -> None:
    assert not may_sign(store, store.key("prod"))


@pytest.mark.parametrize(
    ("code", "error"),
    [("AccessDeniedException", AwsAccessDeniedError), ("DisabledException", KmsKeyStateError)],
)
def test_a_refusal_says_why(store: AwsKmsStore, kms: FaultyKms, code: str, error: type[Exception]) -> None:
    kms.fault("Sign", Refuse(code))
    with pytest.raises(error):
        may_sign(store, store.key("prod"))
    assert len(kms.of("Sign")) == 1  # a question isn't asked again


def test_doctor_goes_on_after_a_key_that_may_not_sign(store: AwsKmsStore, kms: FaultyKms) -> None:
    kms.fault("Sign", Refuse("AccessDeniedException"))
    checks = check_store(store)
    assert [check.verdict for check in checks] == ["ok", "problem"]
    assert checks[1].remedy
    assert outcome(checks) == ("problem", 8)
    kms.fault("Sign", DRY)
    assert "KMS would sign (dry run)" in check_store(store)[1].message


def test_only_keys_of_kms_can_be_asked_about(store: AwsKmsStore) -> None:
    key = PemKey.__new__(PemKey)
    key.name = "pem"
    with pytest.raises(UsageError, match="not in AWS KMS"):
        may_sign(store, key)  # type: ignore[arg-type]  # that is the point
