"""The signature of a FIX Logon (35=A), as Kalshi's FIX gateways want it in RawData (96)."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.values import describe

if TYPE_CHECKING:
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["TARGETS", "FixLogon", "fix_logon", "logon_message"]

TARGETS: Final = ("KalshiNR", "KalshiRT", "KalshiDC", "KalshiPT", "KalshiRFQ", "KalshiMD")
"""The TargetCompIDs of Kalshi's gateways."""

_SOH: Final = "\x01"
_SENDING_TIME = re.compile(r"[0-9]{8}-[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3,6})?")
_COMP_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class FixLogon:
    """What goes into the Logon; the names are FIX's own.

    Args:
        sending_time: Tag 52, byte for byte as it was signed; Kalshi takes it for 30 seconds.
        msg_seq_num: Tag 34.
        sender_comp_id: Tag 49, the API key id.
        target_comp_id: Tag 56.
        raw_data: Tag 96, the signature in base64; tag 95 is its length.
    """

    sending_time: str
    msg_seq_num: int
    sender_comp_id: str
    target_comp_id: str
    raw_data: str

    def __repr__(self) -> str:
        return f"FixLogon(target_comp_id={self.target_comp_id!r}, msg_seq_num={self.msg_seq_num})"


def logon_message(sending_time: str, msg_seq_num: int, sender_comp_id: str, target_comp_id: str) -> bytes:
    """Return the bytes that Kalshi verifies: five fields joined by SOH.

    Raises:
        UsageError: If one of them can't stand in a FIX message.
    """
    if not _SENDING_TIME.fullmatch(sending_time):
        raise UsageError(
            f"{describe(sending_time)} is no SendingTime", hint="it is UTC and looks like 20260102-03:04:05.678"
        )
    if msg_seq_num < 1:
        raise UsageError(f"{msg_seq_num} is no MsgSeqNum", hint="they count from 1")
    for comp_id in (sender_comp_id, target_comp_id):
        if not _COMP_ID.fullmatch(comp_id):
            raise UsageError(f"{describe(comp_id)} is no CompID", hint=f"Kalshi's are {', '.join(TARGETS)}")
    return _SOH.join((sending_time, "A", str(msg_seq_num), sender_comp_id, target_comp_id)).encode("ascii")


def fix_logon(
    signer: RequestSigner, target_comp_id: str, msg_seq_num: int, *, sending_time: str | None = None
) -> FixLogon:
    """Sign a Logon.

    Args:
        signer: Signs with the key whose API key id is the SenderCompID.
        target_comp_id: The gateway, one of ``TARGETS``.
        msg_seq_num: The sequence number of the Logon.
        sending_time: UTC as ``YYYYMMDD-HH:MM:SS.sss``; now by default.

    Raises:
        UsageError: If one of them can't stand in a FIX message.
        HsmKeysError: Whatever the store raises when it can't sign.
    """
    if sending_time is None:
        sending_time = datetime.now(tz=UTC).strftime("%Y%m%d-%H:%M:%S.%f")[:-3]
    message = logon_message(sending_time, msg_seq_num, signer.api_key_id, target_comp_id)
    signature = b64encode(signer.key.sign(message)).decode("ascii")
    return FixLogon(sending_time, msg_seq_num, signer.api_key_id, target_comp_id, signature)
