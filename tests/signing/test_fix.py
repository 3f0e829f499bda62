"""FIX Logons: the pre-hash string of public SDKs, and a signature over exactly that."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import RequestSigner
from hsm_keys.errors import UsageError
from hsm_keys.signing.algorithms import public_key_pem
from hsm_keys.signing.fix import fix_logon, logon_message
from hsm_keys.signing.pem import PemKey
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
SIGNER = RequestSigner(PemKey("test-api-key-uuid", PEM))
TIME = "20230809-05:28:18.035"


def test_the_known_message() -> None:
    expected = b"20230809-05:28:18.035\x01A\x011\x01test-api-key-uuid\x01KalshiNR"
    assert logon_message(TIME, 1, "test-api-key-uuid", "KalshiNR") == expected


def test_raw_data_is_a_signature_over_it_and_over_no_other(tmp_path: Path) -> None:
    logon = fix_logon(SIGNER, "KalshiNR", 1, sending_time=TIME)
    signature = base64.b64decode(logon.raw_data, validate=True)
    assert len(signature) == 256
    pem = public_key_pem(KEY.public_key())
    assert openssl_verifies(tmp_path, pem, logon_message(TIME, 1, "test-api-key-uuid", "KalshiNR"), signature)
    assert not openssl_verifies(tmp_path, pem, logon_message(TIME, 2, "test-api-key-uuid", "KalshiNR"), signature)
    assert logon.raw_data not in repr(logon)


def test_the_time_is_now_in_utc_with_milliseconds() -> None:
    assert logon_message(fix_logon(SIGNER, "KalshiRT", 7).sending_time, 7, "x", "KalshiRT")


@pytest.mark.parametrize(
    ("time", "seq", "target"),
    [
        ("2023-08-09T05:28:18", 1, "KalshiNR"),
        ("20231301-05:28:18.035", 1, "KalshiNR"),
        ("20230230-05:28:18.035", 1, "KalshiNR"),
        ("20230809-24:28:18.035", 1, "KalshiNR"),
        ("20230809-05:60:18.035", 1, "KalshiNR"),
        (TIME + "\n", 1, "KalshiNR"),
        (TIME, 0, "KalshiNR"),
        (TIME, 1, ""),
        (TIME, 1, "a b"),
        (TIME, 1, "a\x01b"),
    ],
)
def test_what_cannot_stand_in_a_message_is_refused(time: str, seq: int, target: str) -> None:
    with pytest.raises(UsageError):
        fix_logon(SIGNER, target, seq, sending_time=time)


@pytest.mark.parametrize("time", [TIME, "20240229-23:59:59", "20161231-23:59:60.000"])
def test_a_moment_can_stand_in_a_message(time: str) -> None:
    assert logon_message(time, 1, "x", "KalshiNR").startswith(time.encode())


@given(st.text(), st.text(), st.text())
def test_nothing_can_add_a_field(time: str, sender: str, target: str) -> None:
    try:
        message = logon_message(time, 1, sender, target)
    except UsageError:
        return
    assert message.count(b"\x01") == 4
