"""What a client with limits may say over a WebSocket: known commands, in frames that can be read in one way."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.sync.client import ClientConnection, unix_connect

from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.commands import UnknownCommandError, check_command
from hsm_keys.proxy.frames import LONGEST_MESSAGE, FrameError, FrameFilter, close_frame
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.sessions import JudgedSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

WS = "/trade-api/ws/v2"
DEFLATE = "permessage-deflate"
LIST = b'{"id": 1, "cmd": "list_subscriptions"}'
SUBSCRIBE = b'{"id": 2, "cmd": "subscribe", "params": {"channels": ["ticker"], "market_tickers": ["KXTEST-1"]}}'
UNKNOWN = b'{"id": 3, "cmd": "create_order", "params": {}}'
TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT


def frame(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = True, **bits: bool) -> bytes:
    """Return a client's frame, whatever is wrong with it."""
    made = Frame(opcode, data, fin, **bits)
    made.check = lambda: None  # type: ignore[method-assign]
    return made.serialize(mask=mask)


def heard(passed: bytes) -> list[tuple[Opcode, bytes]]:
    """Return what a server reads: opcodes and whole messages."""
    server = Protocol(SERVER, state=OPEN)
    server.receive_data(passed)
    frames = server.events_received()
    assert server.parser_exc is None
    assert all(isinstance(one, Frame) and one.fin for one in frames)
    return [(one.opcode, bytes(one.data)) for one in frames if isinstance(one, Frame)]


def refused(*frames: bytes, extensions: str = "") -> tuple[int, str]:
    """Return code and reason; nothing of the last frame was passed on."""
    filtered = FrameFilter(extensions)
    for one in frames[:-1]:
        filtered.feed(one)
    with pytest.raises(FrameError) as error:
        filtered.feed(frames[-1])
    assert filtered.feed(frame(TEXT, LIST)) == b""  # nor of what comes later
    assert len(error.value.reason.encode()) <= 123  # a close frame has no room for more
    return int(error.value.code), error.value.reason


@pytest.mark.parametrize(
    "command",
    [
        LIST,
        b'{"cmd": "list_subscriptions", "params": {}}',
        SUBSCRIBE,
        b'{"id": 1, "cmd": "subscribe", "params": {"channels": ["cfbenchmarks_value"], "index_ids": ["BRTI"]}}',
        b'{"id": 1, "cmd": "unsubscribe", "params": {"sids": [1, 2]}}',
        b'{"id": 1, "cmd": "update_subscription", "params": {"sids": [1], "action": "indexlist"}}',
        b'{"id": 1, "cmd": "update_subscription", "params": {"sid": 1, "action": "add_markets", "market_ids": []}}',
    ],
)
def test_commands_that_are_known(command: bytes) -> None:
    assert heard(FrameFilter("").feed(frame(TEXT, command))) == [(TEXT, command)]


@pytest.mark.sdks
def test_the_commands_of_kalshis_sdk_are_known() -> None:
    from kalshi.perps.ws.models import control

    markets: dict[str, Any] = {"market_ticker": "X", "market_tickers": ["X"], "send_initial_snapshot": True}
    subscribe = control.SubscribeParams(channels=list(control.PerpsChannel), skip_ticker_ack=True, **markets)
    said: list[Any] = [control.SubscribeCommand(id=1, params=subscribe)]
    for action in control.UpdateSubscriptionAction:
        params = control.UpdateSubscriptionParams(action=action, sid=1, sids=[1], **markets)
        said.append(control.UpdateSubscriptionCommand(id=1, params=params))
    said.append(control.UnsubscribeCommand(id=1, params=control.UnsubscribeParams(sids=[1])))
    said.append(control.ListSubscriptionsCommand(id=1))
    for command in said:
        check_command(command.model_dump_json().encode())


@pytest.mark.parametrize(
    "command",
    [
        UNKNOWN,
        b"",
        b"[]",
        b"1",
        b"[" + LIST + b"]",
        b"{",
        LIST + LIST,
        b'{"id": 1}',
        b'{"cmd": ["subscribe"], "params": {}}',
        b'{"cmd": "Subscribe", "params": {"channels": ["ticker"]}}',
        b'{"cmd": "subscribe", "cmd": "create_order", "params": {"channels": ["ticker"]}}',
        b'{"cmd": "subscribe", "CMD": "create_order", "params": {"channels": ["ticker"]}}',
        b'{"cmd": "subscribe", "params": {"channels": ["ticker"], "order": {}}}',
        b'{"cmd": "subscribe", "params": {"channels": ["ticker"]}, "orders": []}',
        b'{"cmd": "subscribe", "params": {"channels": [{"order": 1}]}}',
        b'{"cmd": "update_subscription", "params": {"sids": [1], "action": "create_order"}}',
        b'{"cmd": "unsubscribe", "params": {"sids": [NaN]}}',
        b'{"id": "1", "cmd": "list_subscriptions"}',
        b'{"cmd": "list_subscriptions", "params": {"order": 1}}',
        '{"cmd": "list_subscriptions"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"cmd": "list_subscriptions"}',
        b"[" * 20_000,
    ],
)
def test_what_is_not_known_never_goes_on(command: bytes) -> None:
    with pytest.raises(UnknownCommandError):
        check_command(command)
    assert refused(frame(TEXT, command))[0] == 1008


def test_a_binary_command_goes_on_as_one() -> None:
    passed = FrameFilter("").feed(frame(BINARY, LIST[:9], fin=False) + frame(CONT, LIST[9:]) + frame(TEXT, LIST))
    assert heard(passed) == [(BINARY, LIST), (TEXT, LIST)]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(BINARY, UNKNOWN)], 1008),
        ([frame(BINARY, b"\xff")], 1008),
        ([frame(BINARY, LIST[:9], fin=False), frame(BINARY, LIST[9:])], 1002),
        ([frame(TEXT, LIST, mask=False)], 1002),
        ([frame(TEXT, LIST, rsv1=True)], 1002),
        ([frame(TEXT, LIST, rsv2=True)], 1002),
        ([b"\x83\x80\x00\x00\x00\x00"], 1002),  # a reserved opcode
        ([frame(CONT, LIST)], 1002),
        ([frame(TEXT, LIST[:9], fin=False), frame(TEXT, LIST[9:])], 1002),
        ([frame(TEXT, UNKNOWN[:9], fin=False), frame(Opcode.PING, b""), frame(CONT, UNKNOWN[9:])], 1008),
        ([frame(Opcode.PING, b"x" * 126)], 1002),
        ([frame(Opcode.PING, b"", fin=False)], 1002),
        ([frame(Opcode.CLOSE, b"\x03")], 1002),
        ([frame(Opcode.CLOSE, (1005).to_bytes(2))], 1002),
        ([frame(Opcode.CLOSE, (1000).to_bytes(2) + b"\xff")], 1007),
        ([frame(TEXT, b" " * (LONGEST_MESSAGE + 1))], 1009),
        ([b"\x81\xff" + (2**63).to_bytes(8)], 1009),  # its head alone
        ([frame(TEXT, b" " * LONGEST_MESSAGE, fin=False), frame(CONT, b" ")], 1009),
        ([frame(TEXT, b" " * 40_000, fin=False), frame(CONT, b" " * 40_000, fin=False)], 1009),
    ],
)
def test_frames_that_can_not_be_read_in_one_way(frames: list[bytes], code: int) -> None:
    assert refused(*frames)[0] == code


def compressed(*messages: bytes, context: bool = True) -> list[bytes]:
    """Return frames as a client sends them that has agreed on RFC 7692."""
    deflate = PerMessageDeflate(not context, not context, 15, 15)
    return [Frame(TEXT, message).serialize(mask=True, extensions=[deflate]) for message in messages]


def test_compression_hides_nothing() -> None:
    for context, agreed in (
        (True, DEFLATE),
        (False, f"{DEFLATE}; client_no_context_takeover"),
    ):
        first, second, third = compressed(LIST, LIST, UNKNOWN, context=context)
        filtered = FrameFilter(agreed)
        assert heard(filtered.feed(first + second)) == [(TEXT, LIST)] * 2
        with pytest.raises(FrameError, match="isn't known"):
            filtered.feed(third)
    bomb = compressed(b" " * 50_000_000)
    assert len(bomb[0]) < LONGEST_MESSAGE
    assert refused(*bomb, extensions=DEFLATE)[0] == 1009
    assert refused(frame(TEXT, b"\xff\xff", rsv1=True), extensions=DEFLATE)[0] == 1002


@pytest.mark.parametrize("agreed", ["x-webkit-deflate-frame", f"{DEFLATE}, {DEFLATE}", "x;;", "permessage-bzip2"])
def test_an_extension_that_is_not_known(agreed: str) -> None:
    with pytest.raises(FrameError):
        FrameFilter(agreed)


def test_what_follows_a_close_does_not_go_on() -> None:
    filtered = FrameFilter("")
    goodbye = close_frame(1000, "done", mask=True)
    assert heard(filtered.feed(goodbye + frame(TEXT, UNKNOWN)))[0] == (Opcode.CLOSE, Close(1000, "done").serialize())
    assert filtered.feed(frame(TEXT, LIST)) == b""


@given(
    messages=st.lists(st.sampled_from([LIST, SUBSCRIBE]), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 100), max_size=4),
    pings=st.lists(st.binary(max_size=125), max_size=2),
    steps=st.lists(st.integers(1, 50), min_size=1),
    deflated=st.booleans(),
)
def test_however_it_is_cut_the_same_goes_on(
    messages: list[bytes], cuts: list[int], pings: list[bytes], steps: list[int], deflated: bool
) -> None:
    deflate = PerMessageDeflate(False, False, 15, 15)
    stream = bytearray()
    for message in messages:
        edges = sorted({0, *(min(cut, len(message)) for cut in cuts), len(message)})
        for number, (begin, end) in enumerate(pairwise(edges)):
            part = Frame(CONT if number else TEXT, message[begin:end], end == len(message))
            stream += part.serialize(mask=True, extensions=[deflate] if deflated else [])
            stream += b"".join(Frame(Opcode.PING, ping).serialize(mask=True) for ping in pings)
    filtered, passed = FrameFilter(DEFLATE if deflated else ""), bytearray()
    while stream:
        step = steps[0]
        passed += filtered.feed(bytes(stream[:step]))
        del stream[:step]
        steps.append(steps.pop(0))
    said = heard(bytes(passed))
    assert [data for opcode, data in said if opcode is TEXT] == messages
    assert {opcode for opcode, _ in said} <= {TEXT, Opcode.PING}


@pytest.mark.parametrize(
    ("rules", "narrows"),
    [
        ("", False),
        ("allow_transfers = true\nuids = [1]", False),
        ("read_only = true", True),
        ("max_count = 1", True),
        ("orders_per_minute = 1", True),
        ("cancel_after_silence_seconds = 1", True),
        ("read_tokens_per_second = 1", True),
        ('write_tokens_per_second = "tier"', True),
        ('deny = ["POST /**"]', True),
        ('allow = ["GET /**"]', True),
        ('hours = ["Mon-Fri 09:30-16:00 America/New_York"]', True),
        ("[all]\nmax_open_dollars = 1", True),
    ],
)
def test_whose_commands_are_judged(rules: str, narrows: bool) -> None:
    assert parse_policy(f"version = 1\n[clients.default]\n{rules}").clients["default"].narrows is narrows


def session(proxy: RunningProxy, **options: Any) -> ClientConnection:
    opened: ClientConnection = unix_connect(str(proxy.socket), f"ws://localhost{WS}", **options)
    return opened


@pytest.mark.program
@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_client_that_only_reads_may_subscribe_and_nothing_else(
    compression: str | None, start: Start, sandbox: SandboxServer
) -> None:
    proxy = start("[clients.default]\nread_only = true")
    with session(proxy, compression=compression) as bot:
        assert bool(bot.protocol.extensions) is bool(compression)  # the sandbox's server agrees on it
        bot.send([LIST[:7].decode(), LIST[7:].decode()])  # in two frames
        assert json.loads(bot.recv(timeout=20))["type"] == "ok"
        assert bot.ping(b"are you there").wait(20)
        bot.send(SUBSCRIBE.decode())
        assert json.loads(bot.recv(timeout=20))["type"] == "subscribed"
        bot.send(UNKNOWN.decode())
        with pytest.raises(ConnectionClosed):
            list(bot)
        assert (bot.close_code, bot.close_reason) == (1008, "the command isn't known")
    proxy.stop()
    [line] = [line for line in proxy.lines() if line["kind"] == "websocket_refused"]
    assert (line["client"], line["path"], line["status"], line["rule"]) == (
        "default",
        WS,
        1008,
        "the command isn't known",
    )


def test_whatever_comes_is_a_sign_of_life() -> None:
    heard_of: list[str] = []
    trail = cast("AuditTrail", SimpleNamespace(append=lambda *_, **__: 1))
    judged = JudgedSession(Caller("maker"), WS, hear=heard_of.append, trail=trail, metrics=Metrics())
    judged.begin("")
    for data in (frame(Opcode.PONG, b"heartbeat"), frame(TEXT, LIST)[:5]):
        judged.passed(data)
    assert heard_of == ["maker", "maker"]
