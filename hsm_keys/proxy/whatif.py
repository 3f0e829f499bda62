"""Judges requests by a policy without a proxy: lines of a file, and the reasons for a verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hsm_keys.errors import UsageError
from hsm_keys.kalshi.operations import find_operation
from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.judge import Verdict
from hsm_keys.proxy.orders import JUDGED_LIMIT
from hsm_keys.proxy.paths import UnclearPathError, split_target, whole_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from hsm_keys.proxy.judge import Judge

__all__ = ["SupposedRequest", "explain", "read_asked", "verdict_of"]


class _Line(BaseModel):
    """A line of a file of requests."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: Annotated[str, StringConstraints(pattern="^[A-Z]{1,20}$")]
    path: str
    client: str = "default"
    body: dict[str, Any] | str | None = None
    at: Annotated[AwareDatetime, Field(strict=False)] | None = None


@dataclass(frozen=True, slots=True)
class SupposedRequest:
    """A request as a client would send it.

    Attributes:
        client: The client's name.
        method: HTTP method.
        target: Path and query; it may leave out ``/trade-api/v2``, as rules do.
        body: The body; None for none.
        at: When; None for the time of the request before.
    """

    client: str
    method: str
    target: str
    body: bytes | None = None
    at: datetime | None = None


def read_asked(lines: Iterable[str]) -> Iterator[tuple[int, SupposedRequest]]:
    """Yield the number of each line that isn't blank, and the request that it holds.

    A line is a JSON object with ``method`` and ``path``, and may have ``client``, ``body`` (an object, or a text that
    is sent as it stands) and ``at`` (RFC 3339).

    Raises:
        UsageError: If one can't be read; the message says which.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"][:1]))
            known = where if where in _Line.model_fields else ""
            raise UsageError(
                f"line {number} isn't a request{f': its {known} is missing or wrong' if known else ''}",
                hint='a request looks like {"method": "GET", "path": "/portfolio/balance", "client": "maker"}',
            ) from None
        body = json.dumps(fields.body) if isinstance(fields.body, dict) else fields.body
        yield (
            number,
            SupposedRequest(
                fields.client, fields.method, fields.path, None if body is None else body.encode(), fields.at
            ),
        )


def verdict_of(judge: Judge, request: SupposedRequest, *, at: datetime) -> Verdict:
    """Return what the proxy would say; what is allowed counts in the judge's limits.

    Args:
        judge: Judges.
        request: The request.
        at: When.
    """
    try:
        path, query = split_target(whole_path(request.target))
    except UnclearPathError as error:
        return Verdict(allowed=False, rule="path", message=f"the request target is refused: {error}")
    judged = judge.needs_body(request.client, request.method, path)
    if judged and len(request.body or b"") > JUDGED_LIMIT:
        return Verdict(allowed=False, rule="body", message=f"a body that is judged has {JUDGED_LIMIT} bytes at most")
    judge.reservations.clock = CapClock(lambda: int(at.timestamp() * 1_000_000) * 1000, lambda: 0)
    return judge.judge(request.client, request.method, path, request.body, at=at, now=at.timestamp(), query=query)


def explain(written: Mapping[str, Any], request: SupposedRequest, verdict: Verdict) -> dict[str, Any]:
    """Return what the request is, whose rules it was judged by, and which setting of theirs decided.

    Args:
        written: What the policy's file says.
        request: The request.
        verdict: What was said of it.

    Returns:
        ``operation`` and ``kind`` as the table has them, ``rules_of`` (``clients.NAME``; None for a client without
        rules), ``setting`` and its ``value``; None where none decided.
    """
    operation = find_operation(request.method, whole_path(request.target).partition("?")[0])
    clients = written["clients"]
    section = next((name for name in (request.client, "default") if name in clients), None)
    setting = _setting_of(verdict.rule, request.method)
    return {
        "operation": operation.name,
        "kind": operation.kind.value,
        "rules_of": section and f"clients.{section}",
        "setting": setting,
        "value": clients[section].get(setting) if section and setting else None,
    }


_SETTINGS: Final = {
    "api_keys": "allow_key_management",
    "transfers": "allow_transfers",
    "accounts": "allow_account_changes",
    "version": "allow",
    "gone": "allow_unjudged",
}
"""Settings by rules that have another name."""

_NO_SETTING: Final = {"allowed", "body", "client", "frozen", "method", "path", "tier"}


def _setting_of(rule: str, method: str) -> str | None:
    if rule == "tokens per second":
        return "read_tokens_per_second" if method == "GET" else "write_tokens_per_second"
    word = rule.partition(" ")[0]
    return None if word in _NO_SETTING else _SETTINGS.get(word, word)
