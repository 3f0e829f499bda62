"""Who asks: the kernel is asked once a connection, the policy at each request."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from hsm_keys.processes import peer_of
from hsm_keys.proxy import access
from hsm_keys.proxy.access import Refused
from hsm_keys.proxy.callers import Callers
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from tests.support.client_requests import client_request


def test_a_policy_that_names_the_user_anew_holds_on_connections_that_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[socket.socket] = []

    def peer(connection: socket.socket) -> tuple[int, int | None]:
        asked.append(connection)
        return peer_of(connection)

    monkeypatch.setattr(access, "peer_of", peer)
    judge = Judge(parse_policy(f"version = 1\n[clients.maker]\nuids = [{os.getuid()}]"))
    callers = Callers(judge, None, frozenset())
    here, there = socket.socketpair()
    with here, there:
        request = client_request(
            "GET", "/trade-api/v2/markets", transport=SimpleNamespace(get_extra_info=lambda _name: here)
        )
        assert {callers.of_request(request).client for _ in range(3)} == {"maker"}
        assert len(asked) == 1
        judge.replace(parse_policy(f"version = 1\n[clients.other]\nuids = [{os.getuid()}]"))
        assert callers.of_request(request).client == "other"
        assert request.connection is not None
        request.connection.transport = None
        with pytest.raises(Refused, match="gone"):
            callers.of_request(request)
