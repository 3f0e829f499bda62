"""Heads of HTTP messages, read from a bare socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


def head_of(connection: socket.socket) -> bytes:
    """Return the head of a request or an answer, and leave what comes after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
        head += byte
    return head
