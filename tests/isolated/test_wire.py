"""Errors and long answers on the signer's wire."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import errors
from hsm_keys.errors import StoreError
from hsm_keys.stores.awskms.errors import KmsKeyDisabledError
from hsm_keys.stores.isolated.wire import (
    MAX_MESSAGE,
    Frame,
    FrameKind,
    SignerWireError,
    error_frame,
    error_in,
    frame_bytes,
    json_frame,
    pack,
    parse,
    receive,
    unpack,
)

_numbers = st.integers(0, 2**32 - 1)


def test_a_long_frame_arrives_in_pieces() -> None:
    here, there = socket.socketpair()
    payload = bytes(range(256)) * 8000
    sending = threading.Thread(target=there.sendall, args=(frame_bytes(FrameKind.ANSWER, payload),))
    with here, there:
        sending.start()
        assert receive(here, len(payload)) == Frame(FrameKind.ANSWER, 0, payload)
        sending.join()
        there.shutdown(socket.SHUT_WR)
        assert receive(here, MAX_MESSAGE) is None


def test_a_back_ends_own_error_comes_back_as_the_nearest_known_one() -> None:
    assert type(error_in(parse(error_frame(KmsKeyDisabledError("off"))))) is errors.AwsError


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5)
)
def test_what_tells_no_error_is_refused(told: object) -> None:
    with pytest.raises(SignerWireError):
        error_in(parse(json_frame(FrameKind.ERROR, told)))


def test_a_code_that_nobody_knows_is_a_problem_of_the_store() -> None:
    told = {"code": "from the future", "message": "m", "hint": ""}
    assert type(error_in(parse(json_frame(FrameKind.ERROR, told)))) is StoreError


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_parts_that_were_put_together_come_apart(parts: list[bytes], cut: int) -> None:
    payload = pack(parts)
    assert unpack(payload) == parts
    with suppress(SignerWireError):
        assert pack(unpack(payload[:-cut])) == payload[:-cut]


@pytest.mark.parametrize("payload", [b"\0", b"\0\0\0\1", b"\0\0\0\5x", pack([b"x"]) + b"\0\0\0"])
def test_parts_that_end_early_are_refused(payload: bytes) -> None:
    with pytest.raises(SignerWireError):
        unpack(payload)
