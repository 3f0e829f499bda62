"""What reached the sandbox: a proxy asks it for more than its clients do, at moments of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.sandbox.recording import RecordedRequest

__all__ = ["latest"]


def latest(sandbox: SandboxServer, path: str = "/portfolio/balance") -> RecordedRequest:
    """Return the last request for a path below the base URL's."""
    return [seen for seen in sandbox.requests if seen.path.endswith(path)][-1]
