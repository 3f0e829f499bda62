"""Proxies that run, and what to ask them with."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.running_proxy import RunningProxy, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer


@pytest.fixture
def start(sandbox: SandboxServer, tmp_path: Path) -> Iterator[Callable[..., RunningProxy]]:
    """Starts a proxy before the sandbox, with such options; what they name as a policy is its text."""
    with ExitStack() as stack:

        def start(policy: str | None = None, **options: Any) -> RunningProxy:
            if policy is not None:
                (tmp_path / "policy.toml").write_text("version = 1\n" + policy)
                options["policy"] = tmp_path / "policy.toml"
            return stack.enter_context(with_key_in_memory(tmp_path, **options))

        yield start


@pytest.fixture
def proxy(start: Callable[..., RunningProxy]) -> RunningProxy:
    """A proxy without options, at its Unix socket."""
    return start()
