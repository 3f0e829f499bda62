"""Which methods a path allows: those of its own operations, and no others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hsm_keys.kalshi.operations import WEBSOCKETS
from hsm_keys.sandbox import SandboxServer
from hsm_keys.sandbox.routes import SERVED
from tests.sandbox.client import Caller
from tests.support.wire import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED: dict[str, set[str]] = {}
for served in SERVED:
    if served not in WEBSOCKETS:
        ALLOWED.setdefault(served.route, set()).add(served.method)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}


@pytest.fixture(scope="module")
def boss() -> Iterator[Caller]:
    with SandboxServer(key_type="ed25519") as server:
        yield Caller.bootstrap(server)


@pytest.mark.parametrize("route", ALLOWED)
def test_other_methods_are_refused_with_those_that_are_allowed(boss: Caller, route: str) -> None:
    target = re.sub("{[^}]*}", "unknown", route)
    for method in METHODS - ALLOWED[route]:
        reply = boss.call(method, target)
        assert (reply.status, reply.headers["Allow"]) == (405, ",".join(sorted(ALLOWED[route]))), method
        assert method == "HEAD" or shape_of(reply.json) == "flat"


@pytest.mark.parametrize("route", ALLOWED)
def test_what_is_allowed_is_not_refused_for_its_method(boss: Caller, route: str) -> None:
    for method in ALLOWED[route]:
        assert boss.call(method, re.sub("{[^}]*}", "unknown", route)).status != 405
