"""Temporary credentials: renewed beside the signing path, and in time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.credentials import (  # type: ignore[import-untyped]  # botocore has no annotations
    Credentials,
    RefreshableCredentials,
)

from hsm_keys.stores.awskms import open_uri
from hsm_keys.stores.awskms.credentials import SteadyCredentials, steady
from hsm_keys.stores.awskms.errors import AwsCredentialsError
from tests.support import ministack
from tests.support.kms_faults import FaultyKms, Refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

URI = "awskms:///?region=us-east-1"


class Source:
    """Gives numbered credentials; each renewal can be made to wait, or to fail."""

    def __init__(self) -> None:
        self.given = 0
        self.lasts = timedelta(hours=1)
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.fails = False

    def fetch(self) -> dict[str, str]:
        self.asked.set()
        self.gate.wait(30)
        if self.fails:
            raise OSError("canary: the provider's own words")
        self.given += 1
        return {
            "access_key": f"key-{self.given}",
            "secret_key": "secret",
            "token": f"token-{self.given}",
            "expiry_time": (datetime.now(UTC) + self.lasts).isoformat(),
        }

    def refreshable(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(self.fetch(), self.fetch, "test")


@pytest.fixture
def source() -> Source:
    return Source()


def test_credentials_that_never_change_are_left_as_they_are() -> None:
    fixed = Credentials("key", "secret")
    assert steady(fixed) is fixed


def test_a_renewal_never_holds_up_who_signs(source: Source) -> None:
    source.lasts = timedelta(minutes=14)  # botocore renews from 15 minutes before the end, within the call
    kept = SteadyCredentials(source.refreshable(), look_every_s=3600)
    first = kept.get_frozen_credentials().access_key
    source.gate.clear()
    source.asked.clear()
    assert kept.renewed(0.0) is False  # wakes the thread, which now hangs in the provider
    assert source.asked.wait(10)
    assert kept.get_frozen_credentials().access_key == first
    source.gate.set()
    assert kept.renewed(10.0) or kept.get_frozen_credentials().access_key != first
    kept.close()


def test_the_thread_renews_without_being_asked(source: Source) -> None:
    source.lasts = timedelta(minutes=14)
    kept = SteadyCredentials(source.refreshable(), look_every_s=0.01)
    source.asked.clear()
    assert source.asked.wait(10)
    kept.close()
    kept._thread.join(10)
    assert not kept._thread.is_alive()


def test_a_renewal_that_fails_keeps_what_there_is(source: Source) -> None:
    source.lasts = timedelta(minutes=5)  # within botocore's mandatory window: its own call would raise
    kept = SteadyCredentials(source.refreshable(), look_every_s=3600)
    source.fails = True
    assert kept.renewed(10.0) is False
    assert kept.get_frozen_credentials().access_key.startswith("key-")
    kept.close()


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch, source: Source) -> Iterator[FaultyKms]:
    with FaultyKms() as server:
        ministack.credentials(monkeypatch, server.url)

        def load(_: Any) -> RefreshableCredentials:
            return source.refreshable()

        monkeypatch.setattr("botocore.credentials.CredentialResolver.load_credentials", load)
        yield server


def test_expired_credentials_are_renewed_and_the_signature_is_made(kms: FaultyKms, source: Source) -> None:
    source.lasts = timedelta(minutes=14)
    with open_uri(URI) as store:
        key = store.key("prod")
        kms.fault("Sign", Refuse("ExpiredTokenException"))
        assert len(key.sign(b"m")) == 256
    assert len(kms.of("Sign")) == 2


def test_expired_credentials_that_cannot_be_renewed_are_our_error(kms: FaultyKms, source: Source) -> None:
    source.lasts = timedelta(minutes=5)
    with open_uri(URI) as store:
        key = store.key("prod")
        source.fails = True
        kms.always("Sign", Refuse("ExpiredTokenException"))
        with pytest.raises(AwsCredentialsError, match="have expired") as caught:
            key.sign(b"m")
    assert "canary" not in str(caught.value)
    assert len(kms.of("Sign")) == 1


def test_a_provider_that_fails_at_the_start_is_our_error(kms: FaultyKms, source: Source) -> None:
    source.fails = True
    with pytest.raises(AwsCredentialsError) as caught:
        open_uri(URI)
    assert "canary" not in str(caught.value)
    assert caught.value.exit_code == 8
