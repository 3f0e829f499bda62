"""The head of a client's request, parsed strictly (RFC 9112)."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Final, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from multidict import CIMultiDict

__all__ = ["LONGEST_HEAD", "MalformedError", "ReadsBody", "RequestHead", "Subject"]

LONGEST_HEAD: Final = 32 * 1024
_LONGEST_LINE: Final = 8190
_MOST_HEADERS: Final = 100
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,20}) ([!-~]+) HTTP/1\.([01])\r\n")
_KEY_BYTES: Final = 16


class MalformedError(Exception):
    """What came isn't HTTP that can be read in one way; the words quote nothing of it, as it may hold a token."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The request to judge, sign and record.

    Attributes:
        method: Its method.
        path: Its path, without the query.
        query: The query; empty for none.
        is_sent: Whether the proxy sends it; else its headers are handed out, and whoever has them sends it.
    """

    method: str
    path: str
    query: str = ""
    is_sent: bool = True


class ReadsBody(Protocol):
    """Who is given a body in chunks."""

    def on_body(self, body: bytes) -> None:
        """Keep a part of it."""

    def on_message_complete(self) -> None:
        """Note that it is whole."""


class RequestHead:
    """What a head says. It doesn't change: a request with the same bytes on the same connection has the same one.

    Args:
        head: The head as it came, with the empty line; empty for one that couldn't be read.

    Attributes:
        raw: Those bytes.
        method: Its method.
        raw_path: Its target as it came.
        headers: Its headers.
        minor: Its version of HTTP 1.
        length: Bytes of the body, where it says so.
        chunks: What reads the body if it comes in chunks; None if it doesn't.
        closes: Whether the connection is closed behind the answer.
        is_websocket: Whether it opens a WebSocket (RFC 6455, section 4.1).
        reads_body: Who is given a body in chunks.
        subject: What the request is about, once that was read.
        has_plain_json: Whether its body is JSON as it stands; see ``is_plain_json``. None until that was asked.
        to_kalshi: How the request to Kalshi begins, once that was spelled.

    Raises:
        MalformedError: If it can't be read in one way.
    """

    __slots__ = (
        "_is_whole",
        "chunks",
        "closes",
        "has_plain_json",
        "headers",
        "is_websocket",
        "length",
        "method",
        "minor",
        "raw",
        "raw_path",
        "reads_body",
        "subject",
        "to_kalshi",
    )

    def __init__(self, head: bytes) -> None:
        self.raw = head
        self.method = self.raw_path = self.to_kalshi = ""
        self.minor, self.length, self.closes, self.is_websocket = 1, 0, True, False
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.chunks: HttpRequestParser | None = None
        self.reads_body: ReadsBody | None = None
        self.subject: Subject | None = None
        self.has_plain_json: bool | None = None
        self._is_whole = False
        if head:
            self._read()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, behind the body, aren't kept."""
        if not self._is_whole:
            text = value.decode("utf-8", "surrogateescape").strip(" \t")
            self.headers.add(name.decode("ascii"), text)

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body in chunks."""
        if self.reads_body is not None:
            self.reads_body.on_body(body)

    def on_message_complete(self) -> None:
        """Pass on that a body in chunks is whole."""
        if self.reads_body is not None:
            self.reads_body.on_message_complete()

    def _read(self) -> None:
        head = self.raw
        line = _REQUEST_LINE.match(head)
        if line is None or (len(head) > _LONGEST_LINE and max(map(len, head.split(b"\r\n"))) > _LONGEST_LINE):
            raise MalformedError
        method, target, minor = line.groups()
        self.method, self.raw_path, self.minor = method.decode("ascii"), target.decode("ascii"), int(minor)
        parser = HttpRequestParser(self)
        switches = False
        try:
            parser.feed_data(head)
        except HttpParserUpgrade:
            switches = True
        except HttpParserError:
            raise MalformedError from None
        self._is_whole = True
        headers = self.headers
        hosts, lengths = headers.getall("Host", ()), headers.getall("Content-Length", ())
        codings = headers.getall("Transfer-Encoding", ())
        is_chunked = bool(codings)
        if len(headers) > _MOST_HEADERS or len(hosts) > 1 or (self.minor and not hosts):
            raise MalformedError
        if is_chunked and (switches or not self.minor or [one.lower() for one in codings] != ["chunked"]):
            raise MalformedError
        self.length = int(lengths[0]) if lengths else 0
        if is_chunked:
            self.chunks = parser
        options = self._connection_options()
        # To h2c, for example: the bytes after it may be another protocol, which nobody has judged.
        self.closes = switches or not self.minor or "Upgrade" in headers or "close" in options
        self.is_websocket = "upgrade" in options and self._opens_websocket()

    def _opens_websocket(self) -> bool:
        headers = self.headers
        if headers.get("Upgrade", "").lower() != "websocket":
            return False
        try:
            key = b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
        except ValueError:
            return False
        return (
            self.method == "GET"
            and self.minor == 1
            and self.chunks is None
            and not self.length
            and headers.get("Sec-WebSocket-Version") == "13"
            and len(key) == _KEY_BYTES
        )

    def _connection_options(self) -> set[str]:
        """Return the tokens of the header Connection."""
        values = self.headers.getall("Connection", ())
        return {token.strip().lower() for value in values for token in value.split(",")}
