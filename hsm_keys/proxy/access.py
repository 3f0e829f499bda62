"""Who connects: on a Unix socket the kernel tells the user, over TCP each client has a token of its own."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.processes import peer_of
from hsm_keys.signing.headers import KEY_HEADER
from hsm_keys.values import NAME, shown_path

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Caller", "Refused", "TokenFolder", "check_page", "local_caller"]

_SHORTEST: Final = 32
_LONGEST: Final = 256
_LOOK_EVERY_S: Final = 0.2

_log: Final = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 - it is an answer, not a failure
    """The caller may not use the proxy.

    Args:
        status: The HTTP status.
        reason: A stable word.
        message: What the caller is told.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; ``uid`` and ``pid`` are None over TCP, ``pid`` on macOS too, and ``digest`` is a token's."""

    client: str
    uid: int | None = None
    pid: int | None = None
    digest: bytes = field(default=b"", repr=False)


def check_page(headers: Mapping[str, str], hosts: frozenset[str] | None) -> None:
    """Refuse what comes from a page in a browser: a foreign Host (DNS rebinding), or any Origin.

    Args:
        headers: The request's.
        hosts: The Hosts that are the proxy's own; None on a Unix socket, which no page reaches.

    Raises:
        Refused: If it does.
    """
    if "Origin" in headers:
        raise Refused(403, "origin", "pages in browsers can't use the proxy")
    if hosts is not None and headers.get("Host", "").lower() not in hosts:
        raise Refused(403, "host", "the Host isn't the proxy's own")


def local_caller(connection: socket.socket | None, uids: frozenset[int], name_of: Callable[[int], str]) -> Caller:
    """Return who is at the other end of a Unix socket.

    Args:
        connection: The socket; None if it is closed.
        uids: The users that may use it.
        name_of: Gives the client that a user is.

    Raises:
        Refused: If that user may not, or has gone.
    """
    try:
        uid, pid = peer_of(connection) if connection is not None else (None, None)
    except OSError:
        uid, pid = None, None
    if uid is None:
        raise Refused(403, "gone", "the client has gone")
    if uid not in uids:
        raise Refused(403, "uid", f"the user {uid} may not use the proxy: --allow-uid allows it")
    return Caller(name_of(uid), uid, pid)


class TokenFolder:
    """Tokens of clients: files of mode 0600, each named like its client; one that is removed is revoked at once.

    Args:
        folder: Where they are.

    Raises:
        UsageError: If there is none, others can read one or write to the folder, or one is too short or two clients'.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, bytes] = {}
        self._seen: tuple[object, ...] = ()
        self._looked_at = float("-inf")
        problems = self._look()
        if problems or not self._digests:
            what = "; ".join(problems) or "it has no files"
            raise UsageError(
                f"the clients' tokens in {shown_path(folder)} can't be used: {what}",
                hint="this makes a token: (umask 077; openssl rand -hex 32 > FOLDER/CLIENT)",
            )

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return who sends such headers: ``Authorization: Bearer TOKEN``, or the token as ``KALSHI-ACCESS-KEY``.

        A client that can send nothing of its own takes its token for an API key id.

        Raises:
            Refused: If no client has that token.
        """
        self._look_again()
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        token = credentials.strip() if scheme.lower() == "bearer" else headers.get(KEY_HEADER, "")
        digest = _digest(token.encode("utf-8", "surrogateescape"))
        client_of_token = None
        for client, known in self._digests.items():  # all are compared, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                client_of_token = client
        if client_of_token is None:
            raise Refused(401, "token", "the proxy wants a client's token: Authorization: Bearer TOKEN")
        return Caller(client_of_token, digest=digest)

    def has(self, caller: Caller) -> bool:
        """Tell whether the token with which somebody came is still that client's."""
        self._look_again()
        return self._digests.get(caller.client) == caller.digest

    def _look_again(self) -> None:
        if time.monotonic() - self._looked_at > _LOOK_EVERY_S:
            for problem in self._look():
                _log.warning("a client's token can't be used: %s", problem)

    def _look(self) -> list[str]:
        """Read the files if they are others than before, and return what is wrong with some."""
        self._looked_at = time.monotonic()
        try:
            folder = self._folder.stat()
            with os.scandir(self._folder) as entries:
                files = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            gone = bool(self._digests) or not self._seen
            self._digests, self._seen = {}, (error.errno,)
            return [error.strerror or str(error)] if gone else []
        seen = (
            (folder.st_mode, folder.st_uid),
            *((name, info.st_mtime_ns, info.st_ino, info.st_size, info.st_mode) for name, info in files),
        )
        if seen == self._seen:
            return []
        self._seen, self._digests = seen, {}
        if folder.st_mode & 0o022 or folder.st_uid not in {0, os.geteuid()}:
            return ["others can write to it, and so give one client the name of another"]
        problems = []
        for name, _ in files:
            try:
                digest = _read(self._folder / name)
                if digest in self._digests.values():
                    raise ValueError("it is the token of another client too")
                self._digests[name] = digest
            except ValueError as error:
                problems.append(f"{name}: {error}")
        return problems


def _read(path: Path) -> bytes:
    if not NAME.fullmatch(path.name):
        raise ValueError("it is no name for a client: letters, digits, dots, dashes, underscores")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"it has to be a file of yours with mode 0600 ({error.strerror})") from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077 or info.st_uid != os.geteuid():
            raise ValueError("it has to be a file of yours with mode 0600")
        token = os.read(descriptor, _LONGEST + 2).strip()
    finally:
        os.close(descriptor)
    if not _SHORTEST <= len(token) <= _LONGEST or not token.isascii() or b" " in token:
        raise ValueError(f"a token has {_SHORTEST} to {_LONGEST} letters and digits")
    return _digest(token)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
