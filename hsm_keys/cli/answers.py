"""How an answer of Kalshi's is printed: byte for byte for people, as one JSON object for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.cli import exact_json
from hsm_keys.signing.headers import SIGNATURE_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx2

__all__ = ["TimedAnswer", "answers_object", "refusal_text", "timing"]

_LONGEST_REFUSAL: Final = 4000  # characters of an error's body: Kalshi's are shorter, a proxy's page may not be


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """An answer, and how many milliseconds it took from before the signature to the end of the body."""

    response: httpx2.Response
    elapsed_ms: float

    def as_bytes(self, *, include: bool) -> bytes:
        """Return the body as it came, and a line end if it has none; before it the status line and the headers."""
        head = b"".join(f"{line}\n".encode() for line in [*_head(self.response), ""]) if include else b""
        body = self.response.content
        return head + body + (b"\n" if body and not body.endswith(b"\n") else b"")

    def as_object(self, *, include: bool) -> str:
        """Return the text of one JSON object.

        It is Kalshi's own, byte for byte, if the body is one. Otherwise, and always with the headers, it is
        ``{"status", "headers", "body"}``, where the body is JSON as it came, null if it is empty, else a string.
        """
        body, value = _json_text(self.response.content)
        if isinstance(value, dict) and not include:
            return body
        headers = {"headers": _headers(self.response)} if include else {}
        return _object({"status": str(self.response.status_code), **headers, "body": body})


def answers_object(answers: Sequence[TimedAnswer], *, include: bool) -> str:
    """Return the JSON object of a repeated request: ``{"answers": [{"status", "elapsed_ms", "body"}]}``."""
    texts = []
    for answer in answers:
        headers = {"headers": _headers(answer.response)} if include else {}
        body, _ = _json_text(answer.response.content)
        members = {"status": str(answer.response.status_code), "elapsed_ms": f"{answer.elapsed_ms:.3f}"}
        texts.append(_object({**members, **headers, "body": body}))
    return _object({"answers": f"[{', '.join(texts)}]"})


def refusal_text(response: httpx2.Response, *, include: bool) -> list[str]:
    """Return what an answer that is no success says, line by line, fit for a terminal and without secrets."""
    from hsm_keys.kalshi.bodies import clean

    body = clean(response.content.decode(errors="replace"), _LONGEST_REFUSAL)
    return [*([clean(line) for line in _head(response)] if include else []), *([f"answer: {body}"] if body else [])]


def timing(times_ms: Sequence[float]) -> str:
    """Return a line on how long the answers took."""
    from statistics import median

    return (
        f"{len(times_ms)} answers, each to a signature of its own: {min(times_ms):.1f} ms the fastest, "
        f"{median(times_ms):.1f} ms the median, {max(times_ms):.1f} ms the slowest"
    )


def _json_text(content: bytes) -> tuple[str, Any]:
    """Return a body as JSON text, and its value; the text of a string if it is no JSON."""
    try:
        value = exact_json.read(content)
    except ValueError:
        return json.dumps(content.decode(errors="replace") if content else None), None
    return content.decode().strip(), value


def _head(response: httpx2.Response) -> list[str]:
    """Return the status line and the headers of an answer."""
    status = f"{response.http_version} {response.status_code} {response.reason_phrase}".rstrip()
    return [status, *(f"{name}: {_unsigned(response, value)}" for name, value in response.headers.multi_items())]


def _headers(response: httpx2.Response) -> str:
    """Return the headers as a JSON object; those that came several times are joined with a comma."""
    return json.dumps({name: _unsigned(response, value) for name, value in response.headers.items()})


def _unsigned(response: httpx2.Response, value: str) -> str:
    """Hide the signature of the request: a server may send back what it was sent."""
    signature = response.request.headers.get(SIGNATURE_HEADER)
    return value.replace(signature, "[hidden]") if signature else value


def _object(members: dict[str, str]) -> str:
    """Return a JSON object of texts that are JSON already."""
    return f"{{{', '.join(f'{json.dumps(name)}: {text}' for name, text in members.items())}}}"
