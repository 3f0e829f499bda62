"""fix_logon against two FIX engines: kalshi-sdk's, and simplefix with a gateway that verifies."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
import simplefix

from hsm_keys import KeyType, open_store
from hsm_keys.signing.fix import TARGETS, fix_logon, logon_message
from tests.support.fix_gateway import FixGateway
from tests.support.sdks import need, run_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox.state import SandboxKey
    from hsm_keys.signing.fix import FixLogon

TIME = "20260102-03:04:05.678"


def encoded(logon: FixLogon) -> simplefix.FixMessage:
    message = simplefix.FixMessage()
    message.append_pair(8, "FIXT.1.1", header=True)
    message.append_pair(35, "A", header=True)
    message.append_pair(49, logon.sender_comp_id, header=True)
    message.append_pair(56, logon.target_comp_id, header=True)
    message.append_pair(34, logon.msg_seq_num, header=True)
    message.append_pair(52, logon.sending_time, header=True)
    message.append_pair(98, 0)
    message.append_pair(108, 30)
    message.append_data(95, 96, logon.raw_data)
    message.append_pair(141, "Y")
    message.append_pair(1137, 9)
    return message


def answer_to(message: simplefix.FixMessage, gateway: FixGateway) -> simplefix.FixMessage:
    parser = simplefix.FixParser()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(message.encode())
        while (answer := parser.get_message()) is None:
            data = connection.recv(4096)
            assert data
            parser.append_buffer(data)
    return answer


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_simplefix_logs_on(enrolled: Callable[..., SandboxKey], key_type: KeyType) -> None:
    registered = enrolled(key_type)
    with FixGateway(registered.api_key_id, registered.public_key) as gateway:
        logon = run_recipe("another FIX engine")["logon"]
        assert answer_to(encoded(logon), gateway).get(35) == b"A"
    assert gateway.verdicts == ["good"]


@pytest.mark.softhsm
@pytest.mark.parametrize("store_uri", ["SoftHSM"], indirect=True)
def test_every_signed_field_counts(prod: SandboxKey, store_uri: str) -> None:
    with FixGateway(prod.api_key_id, prod.public_key) as gateway, open_store(store_uri) as store:
        signer = store.key("prod").signer()
        sent = {}
        for tag, value in {34: 2, 52: "20260102-03:04:05.678", 56: "KalshiRT", 96: "AAAA"}.items():
            message = encoded(fix_logon(signer, "KalshiNR", 1))
            message.remove(tag)
            message.append_pair(tag, value)
            sent[tag] = gateway.judge(message)
        other_target = gateway.judge(encoded(fix_logon(signer, "KalshiDC", 1)))
    assert sent == {34: "signature", 52: "SendingTime", 56: "CompID", 96: "RawDataLength"}
    assert other_target == "CompID"


@pytest.mark.sdks
@pytest.mark.parametrize("target", TARGETS)
def test_the_message_is_the_one_that_kalshi_sdk_signs(target: str) -> None:
    need("kalshi-sdk")
    signer = import_module("kalshi.fix").FixSigner("3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", None)
    ours = logon_message(TIME, 7, "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", target)
    assert ours == signer.build_pre_hash(sending_time=TIME, msg_seq_num=7, target_comp_id=target)


@pytest.mark.sdks
def test_the_targets_are_those_of_kalshi_sdk() -> None:
    need("kalshi-sdk")
    assert set(TARGETS) == {session.value for session in import_module("kalshi.fix").FixSessionType}
