"""Sends requests to the control sockets of running proxies. It imports no library, so that a freeze doesn't wait."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import HsmKeysError, OutcomeUnknownError, StoreAmbiguousError, StoreNotFoundError, UsageError
from hsm_keys.processes import peer_of
from hsm_keys.proxy.locations import beside, search
from hsm_keys.values import may_be_shown, shown, shown_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ControlAnswer", "NotCancelledError", "NotSavedError", "ProxyChoice", "ask_all", "ask_one", "find_one"]

_ANSWER_S: Final = 10.0
_OK: Final = 200
_NOT_SAVED: Final = 507
_ROOT: Final = 0


class NotSavedError(HsmKeysError):
    """A proxy did what it was asked for, or left it, and a restart would undo that."""

    code = "not_saved"


class NotCancelledError(HsmKeysError):
    """A proxy couldn't cancel the account's orders, or doesn't know whether it has."""

    exit_code = 7
    code = "not_cancelled"


class _NobodyError(Exception):
    """Nobody listens at a socket."""


@dataclass(frozen=True, slots=True)
class ProxyChoice:
    """Which proxies are meant: one of the three.

    Args:
        name: Every proxy of that name.
        socket: The one with that socket, its clients' or the control socket.
        everyone: All that are found.
    """

    name: str | None = None
    socket: Path | None = None
    everyone: bool = False


@dataclass(slots=True)
class ControlAnswer:
    """What a proxy said.

    Attributes:
        socket: Its control socket.
        said: Its status, or its identity.
        error: What went wrong instead, or besides.
    """

    socket: Path
    said: dict[str, Any] = field(default_factory=dict)
    error: HsmKeysError | None = None


def ask_one(wanted: ProxyChoice, method: str, target: str) -> dict[str, Any]:
    """Ask the one proxy that is meant, and return what it says.

    Raises:
        StoreNotFoundError: If there is none.
        StoreAmbiguousError: If there are several; none was asked then.
        HsmKeysError: If it doesn't answer, or refuses.
    """
    try:
        answer = _asked(find_one(wanted).socket, method, target)
    except _NobodyError:
        raise _not_found(wanted, "it has just ended") from None
    if answer.error is not None:
        raise answer.error
    return answer.said


def find_one(wanted: ProxyChoice) -> ControlAnswer:
    """Return what the one proxy that is meant says of itself.

    Raises:
        StoreNotFoundError: If there is none.
        StoreAmbiguousError: If there are several.
        HsmKeysError: If it doesn't answer.
    """
    alive = ask_all(wanted, "GET", "/identity")
    if len(alive) > 1:
        raise StoreAmbiguousError(
            f"{len(alive)} proxies are meant: {', '.join(str(answer.socket) for answer in alive)}",
            hint="say which one: --socket PATH",
        )
    if alive[0].error is not None:
        raise alive[0].error
    return alive[0]


def ask_all(wanted: ProxyChoice, method: str, target: str) -> list[ControlAnswer]:
    """Ask all proxies that are meant, at once: one that hangs delays no other.

    Returns:
        The answers of those that listen; at least one.

    Raises:
        StoreNotFoundError: If there is none; the hint says where it was looked for.
    """
    if wanted.socket is not None:
        sockets, where = _sockets_of(wanted.socket), ""
    else:
        looked = search(None if wanted.everyone else wanted.name)
        sockets, where = looked.sockets, _where(looked.folders, looked.closed)
    answers = _answers(sockets, method, target)
    if not answers:
        raise _not_found(wanted, where)
    return answers


def _answers(sockets: Sequence[Path], method: str, target: str) -> list[ControlAnswer]:
    answers: dict[int, ControlAnswer] = {}

    def ask(number: int) -> None:
        try:
            answers[number] = _asked(sockets[number], method, target)
        except _NobodyError:
            return

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(sockets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[number] for number in sorted(answers)]


def _sockets_of(path: Path) -> list[Path]:
    """Return the control socket that is meant by a socket of a proxy: itself, one beside it, or one that says so."""
    if os.path.exists(control := beside(path)):
        return [control]
    where = f"the socket {path.resolve()}"
    known = _answers(search(None).sockets, "GET", "/identity")
    return [answer.socket for answer in known if answer.said.get("serves_at") == where] or [control]


def _asked(path: Path, method: str, target: str) -> ControlAnswer:
    """Ask one; raise ``_NobodyError`` if nobody listens there."""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(_ANSWER_S)
        try:
            owner = path.stat().st_uid
            connected.connect(str(path))
            user, process = peer_of(connected)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise _NobodyError from None
        except OSError as error:
            refusal = UsageError(
                f"the proxy at {shown_path(path)} can't be asked: {error.strerror or error}",
                hint="run the command as the proxy's user, or as root",
            )
            return ControlAnswer(path, error=refusal)
        if user != owner or os.geteuid() not in {owner, _ROOT}:
            return ControlAnswer(path, error=_stranger(path, user))
        from http.client import HTTPConnection, HTTPException  # where no proxy runs, nobody waits for it

        connection = HTTPConnection("localhost")
        connection.sock = connected
        try:
            connection.request(method, target)
            answer = connection.getresponse()
            reply = json.loads(answer.read())
        except (OSError, HTTPException, ValueError, RecursionError):
            return ControlAnswer(path, error=_silent(path, process))
        finally:
            connection.close()
    return ControlAnswer(path, reply, _problem(path, answer.status, reply, target))


def _problem(path: Path, status: int, reply: dict[str, Any], target: str) -> HsmKeysError | None:
    """Return what an answer says that wasn't done; None if all was."""
    if status == _NOT_SAVED:
        return _not_saved(reply["not_saved"], target)
    if status != _OK:
        return UsageError(f"the proxy at {shown_path(path)} refuses: status {status}", hint="see the proxy's log")
    return _not_cancelled(reply) if reply.get("cancelled", {}).get("problem") else None


def _not_cancelled(reply: dict[str, Any]) -> NotCancelledError:
    frozen = "signing is frozen, but " if reply["frozen"] else ""
    return NotCancelledError(
        f"{frozen}orders may still rest: {reply['cancelled']['problem']}",
        hint="run the same command again, or cancel the orders on Kalshi's site",
    )


def _not_saved(reason: str, target: str) -> NotSavedError:
    if target.startswith("/freeze"):
        return NotSavedError(
            f"frozen, but the freeze can't be saved ({reason}): a restart would thaw the proxy",
            hint="make room in the state folder and freeze again; don't restart the proxy until then",
        )
    return NotSavedError(
        f"not thawed, because the thaw can't be saved ({reason}): a restart would freeze the proxy again",
        hint="make room in the state folder and thaw again",
    )


def _stranger(path: Path, user: int) -> HsmKeysError:
    return UsageError(
        f"a program of the user {user} listens at {shown_path(path)}, so it wasn't asked",
        hint="run the command as that user, or as root",
    )


def _silent(path: Path, process: int | None) -> HsmKeysError:
    end = "end its process" if process is None else f"kill -9 {process} ends it"
    return OutcomeUnknownError(
        f"the proxy at {shown_path(path)} accepts connections but doesn't answer: its state isn't known",
        hint=f"try `hsm-keys proxy status --socket {path}`; {end}",
    )


def _where(folders: Sequence[Path], closed: Sequence[Path]) -> str:
    looked = "looked in " + ", ".join(map(str, folders))
    if not closed:
        return looked
    return f"{looked}; this user can't read {', '.join(map(str, closed))}: run it as the proxy's user, or as root"


def _not_found(wanted: ProxyChoice, where: str) -> StoreNotFoundError:
    if wanted.socket is not None:
        return StoreNotFoundError(
            f"no proxy answers at {shown_path(wanted.socket)}",
            hint="`hsm-keys proxy status --all` shows the running proxies",
        )
    if wanted.everyone or wanted.name is None:
        return StoreNotFoundError("no proxy answers", hint=f"{where}. Name its socket: --socket PATH")
    # Folders don't hold the name; a path could hold a secret that doesn't look like one.
    hint = f"{where}. Name its socket: --socket PATH" if may_be_shown(wanted.name) else "name its socket: --socket PATH"
    return StoreNotFoundError(f"no proxy for {shown(wanted.name)} answers", hint=hint)
