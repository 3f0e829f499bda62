"""Temporary credentials: renewed beside the signing path, and in time."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.credentials import (  # type: ignore[import-untyped]  # botocore has no annotations
    Credentials,
    RefreshableCredentials,
)

from hsm_keys.errors import UsageError
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.credentials import SteadyCredentials
from hsm_keys.stores.awskms.errors import AwsCredentialsError
from tests.support import ministack
from tests.support.kms_faults import FaultyKms, Refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def nothing_else() -> None:
    """The chain of providers finds nothing."""


def steady(source: Source) -> SteadyCredentials:
    return SteadyCredentials(source.refreshable(), nothing_else, look_every_s=3600)


def test_a_renewal_never_holds_up_who_signs(source: Source) -> None:
    source.lasts = timedelta(minutes=14)  # botocore renews from 15 minutes before the end, within the call
    kept = steady(source)
    first = kept.get_frozen_credentials()
    source.gate.clear()
    source.asked.clear()
    assert kept.renewed(first, 0.0) is False  # wakes the thread, which now hangs in the provider
    assert source.asked.wait(10)
    assert kept.get_frozen_credentials() == first
    source.gate.set()
    assert kept.renewed(first, 10.0)
    kept.close()


def test_the_thread_renews_without_being_asked(source: Source) -> None:
    source.lasts = timedelta(minutes=14)
    kept = SteadyCredentials(source.refreshable(), nothing_else, look_every_s=0.01)
    source.asked.clear()
    assert source.asked.wait(10)
    kept.close()
    assert kept._thread is not None
    kept._thread.join(10)
    assert not kept._thread.is_alive()


def test_a_renewal_that_fails_keeps_what_there_is(source: Source) -> None:
    source.lasts = timedelta(minutes=5)  # within botocore's mandatory window: its own call would raise
    kept = steady(source)
    first = kept.get_frozen_credentials()
    source.fails = True
    assert kept.renewed(first, 10.0) is False
    assert kept.get_frozen_credentials() == first
    kept.close()


def test_credentials_that_do_not_renew_themselves_are_looked_up_again_once_refused() -> None:
    found = [Credentials("key-2", "secret")]
    kept = SteadyCredentials(Credentials("key-1", "secret"), lambda: found[-1])
    first = kept.get_frozen_credentials()
    assert (first.access_key, kept._thread) == ("key-1", None)  # nothing looks as long as nothing is refused
    assert kept.renewed(first, 10.0)
    second = kept.get_frozen_credentials()
    assert second.access_key == "key-2"
    assert kept.renewed(first, 0.0)  # who met the same refusal beside need not wait for another look
    assert kept.renewed(second, 10.0) is False
    kept.close()


def test_the_providers_are_asked_where_a_source_fails(source: Source) -> None:
    source.lasts = timedelta(minutes=5)
    kept = SteadyCredentials(source.refreshable(), lambda: Credentials("other", "secret"), look_every_s=3600)
    source.fails = True
    assert kept.renewed(kept.get_frozen_credentials(), 10.0)
    assert kept.get_frozen_credentials().access_key == "other"
    kept.close()


class Rotated:
    """A KMS that knows one access key, and AWS's own files or program, which give another one after a rotation."""

    def __init__(self, server: FaultyKms, folder: Path, by: str) -> None:
        self.server = server
        self._file = folder / "credentials"
        self._by = by
        config = folder / "config"
        config.write_text("[default]\n" + (f"credential_process = cat {self._file}\n" if by == "program" else ""))
        self.write("first")
        self.variables = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        if by == "file":
            self.variables["AWS_SHARED_CREDENTIALS_FILE"] = str(self._file)

    def write(self, access_key: str) -> None:
        """Write the new key, and let KMS refuse the old one from now on."""
        if self._by == "file":
            text = f"[default]\naws_access_key_id={access_key}\naws_secret_access_key=s\naws_session_token=t\n"
        else:
            pair = {"AccessKeyId": access_key, "SecretAccessKey": "s", "SessionToken": "t"}
            text = json.dumps({"Version": 1, **pair})
        self._file.write_text(text)
        self.server.access_key = access_key


@pytest.fixture(params=["file", "program"])
def rotated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rotated]:
    with FaultyKms() as server:
        ministack.credentials(monkeypatch, server.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        at_hand = Rotated(server, tmp_path, request.param)
        for name, value in at_hand.variables.items():
            monkeypatch.setenv(name, value)
        yield at_hand


def test_rotated_credentials_are_read_without_a_restart(rotated: Rotated) -> None:
    with open_kms(URI) as store:
        key = store.key("prod")
        rotated.write("second")
        assert len(key.sign(b"m")) == 256
        rotated.write("third")
        assert store.key("prod").api_key_id == key.api_key_id
        rotated.write("fourth")
        store.caller().manage("us-east-1").create_alias(AliasName="alias/hsm-keys/x", TargetKeyId=key.arn)


def test_rotated_credentials_that_aws_refuses_too_are_looked_up_once(rotated: Rotated) -> None:
    with open_kms(URI) as store:
        key = store.key("prod")
        rotated.write("second")
        rotated.server.access_key = "another"
        with pytest.raises(AwsCredentialsError):
            key.sign(b"m")
        assert len(rotated.server.of("Sign")) == 2
        with pytest.raises(AwsCredentialsError):
            key.sign(b"m")
        assert len(rotated.server.of("Sign")) == 3


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
    with open_kms(URI) as store:
        key = store.key("prod")
        kms.fault("Sign", Refuse("ExpiredTokenException"))
        assert len(key.sign(b"m")) == 256
    assert len(kms.of("Sign")) == 2


def test_expired_credentials_that_cannot_be_renewed_are_our_error(kms: FaultyKms, source: Source) -> None:
    source.lasts = timedelta(minutes=5)
    with open_kms(URI) as store:
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
        open_kms(URI)
    assert "canary" not in str(caught.value)
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "AKIACANARY\n"),
        ("AWS_ACCESS_KEY_ID", '"AKIACANARY"'),
        ("AWS_ACCESS_KEY_ID", "AKIACANARY,"),
        ("AWS_SECRET_ACCESS_KEY", "canary "),
        ("AWS_SECRET_ACCESS_KEY", "can\tary"),
        ("AWS_SESSION_TOKEN", "canary\r\n"),
        ("AWS_SESSION_TOKEN", "can ary"),
    ],
)
def test_what_cannot_be_a_credential_is_named_and_not_sent(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyKms() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv(variable, value)
        with pytest.raises(AwsCredentialsError) as caught:
            open_kms(URI)
        assert server.seen == []
    assert variable in caught.value.hint
    assert "canary" not in str(caught.value).lower()


def test_a_credentials_file_with_quotes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text('[default]\naws_access_key_id = "AKIA"\naws_secret_access_key = s\n')
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(AwsCredentialsError, match="access key id") as caught:
        open_kms(URI)
    assert "shared-credentials-file" in caught.value.hint


CONTAINER = "http://127.0.0.1:9/x"
ROLE = "arn:aws:iam::111122223333:role/x"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"AWS_SHARED_CREDENTIALS_FILE": "/no/such"}, "AWS_SHARED_CREDENTIALS_FILE names /no/such"),
        ({"AWS_SHARED_CREDENTIALS_FILE": '"/no/such"'}, r"FILE names a path \(10 characters, with quotes around it\)"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/"}, "AWS_SHARED_CREDENTIALS_FILE names /,"),
        ({"AWS_CONFIG_FILE": '"/no/such"'}, "AWS_CONFIG_FILE names a path .* quotes"),
        ({"AWS_CONFIG_FILE": "/no/such", "AWS_PROFILE": "prod"}, "no such profile; AWS_CONFIG_FILE names /no/such"),
        ({"AWS_PROFILE": '"prod"'}, "no such profile: it has quotes around it"),
        ({"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such"}, "TOKEN_FILE names /no/such"),
        (
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": CONTAINER, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/no/such"},
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names /no/such",
        ),
        (
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "nonsense"},
            "FULL_URI isn't the address of credentials: text of 8 characters",
        ),
        (
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f'"{CONTAINER}"'},
            "FULL_URI isn't the address of credentials: .* quotes",
        ),
    ],
)
def test_a_variable_that_leads_nowhere_is_named(
    variables: dict[str, str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in (nowhere | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AwsCredentialsError, match=named):
        open_kms(URI)


@pytest.mark.parametrize("content", [b"nonsense", b"\xff\xfe[\0d\0", b"\xef\xbb\xbf[default]\nregion = x\n"])
@pytest.mark.parametrize("variable", ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"])
def test_a_file_that_cannot_be_read_is_named(
    variable: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "aws"
    file.write_bytes(content)
    monkeypatch.setenv(variable, str(file))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with pytest.raises(AwsCredentialsError, match=rf"{file} can't be read") as caught:
        open_kms(URI)
    assert "byte order mark" in caught.value.hint


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_of_authorities_that_is_not_there_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(variable, "/no/such.pem")
    with pytest.raises(UsageError, match=rf"{variable} names /no/such\.pem"):
        open_kms(URI)
