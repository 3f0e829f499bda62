"""The signature of a FIX Logon (35=A), as Kalshi's FIX gateways want it in RawData (96)."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.environments import ENVIRONMENTS, PERPS, environment_name, resolve
from hsm_keys.values import describe

if TYPE_CHECKING:
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["PORTS", "TARGETS", "FixLogon", "fix_address", "fix_logon", "logon_message"]

PORTS: Final = {
    "KalshiNR": 8228,
    "KalshiRT": 8230,
    "KalshiDC": 8229,
    "KalshiPT": 8231,
    "KalshiRFQ": 8232,
    "KalshiMD": 8233,
}
"""The port of each gateway by its TargetCompID, the same in each environment.

Order entry without and with retransmission, drop copy, post-trade, RFQs, market data.
"""

TARGETS: Final = tuple(PORTS)
"""The TargetCompIDs of Kalshi's gateways."""

_MARKET_DATA: Final = "KalshiMD"
_NOT_PERPS: Final = frozenset({"KalshiPT", "KalshiRFQ"})

_SOH: Final = "\x01"
_SENDING_TIME = re.compile(r"[0-9]{8}-[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3,6})?")
_COMP_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class FixLogon:
    """The signed fields of a Logon; the names are FIX's own.

    Args:
        sending_time: Tag 52, exactly as it was signed; Kalshi accepts it for 30 seconds.
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


def fix_address(
    target_comp_id: str, *, base_url: str | None = None, environment: str | None = None, exchange: str | None = None
) -> tuple[str, int] | None:
    """Return host and port of a gateway. Gateways use FIX over TLS, and accept one connection for each API key.

    Args:
        target_comp_id: The gateway.
        base_url: The base URL of the REST API; it, ``environment`` and ``exchange`` as for ``resolve``.
        environment: ``prod`` or ``demo``, instead of a base URL.
        exchange: ``perps`` for perpetual futures.

    Returns:
        Host and port; None if the base URL isn't Kalshi's, or there is no such gateway.

    Raises:
        UsageError: If the exchange has no such gateway, or the base URL isn't valid.
    """
    name = environment_name(resolve(base_url=base_url, environment=environment, exchange=exchange))
    hosts, port = ENVIRONMENTS.get(name), PORTS.get(target_comp_id)
    if exchange == PERPS and target_comp_id in _NOT_PERPS:
        raise UsageError(f"there is no {target_comp_id} for perpetual futures", hint="leave --exchange perps out")
    if hosts is None or port is None:
        return None
    at_market_data = target_comp_id == _MARKET_DATA
    if exchange == PERPS:
        return hosts.margin_fix_market_data if at_market_data else hosts.margin_fix, port
    return hosts.fix_market_data if at_market_data else hosts.fix, port


def _is_time(text: str) -> bool:
    """Tell whether a text is a moment as FIX writes it; a leap second is one."""
    if not _SENDING_TIME.fullmatch(text):
        return False
    try:
        time.strptime(text.partition(".")[0], "%Y%m%d-%H:%M:%S")
    except ValueError:
        return False
    return True


def logon_message(sending_time: str, msg_seq_num: int, sender_comp_id: str, target_comp_id: str) -> bytes:
    """Return the bytes that Kalshi verifies: five fields joined by SOH.

    They are SendingTime, MsgType (A), MsgSeqNum, SenderCompID and TargetCompID.

    Raises:
        UsageError: If one of them isn't valid in a FIX message.
    """
    if not _is_time(sending_time):
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
