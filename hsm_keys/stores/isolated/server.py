"""The signer process: opens the store, signs for its user's processes, and ends with its owner."""

from __future__ import annotations

import base64
import os
import select
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization

from hsm_keys.errors import KeyNotFoundError, PinMissingError, StoreUnavailableError, UsageError
from hsm_keys.processes import keep_to_itself, peer_is_me
from hsm_keys.stores import backend_of
from hsm_keys.stores.isolated.folder import PrivateFolder
from hsm_keys.stores.isolated.wire import (
    MAX_ANSWER,
    MAX_MESSAGE,
    Frame,
    FrameKind,
    SignerWireError,
    error_frame,
    frame_bytes,
    json_frame,
    pack,
    receive,
    unpack,
)
from hsm_keys.stores.pins import Pin, PinGetter, PinWanted

if TYPE_CHECKING:
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["main"]

_MAX_CONNECTIONS: Final = 256
_BACKLOG: Final = 128
_LAST_WORDS_S: Final = 3.0
_PAUSE_S: Final = 0.1


class _Keys:
    """The keys that were asked for, by the numbers that they are told by.

    Args:
        store: Has them.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._keys: list[StoredKey] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> StoredKey:
        try:
            return self._keys[number]
        except IndexError:
            raise UsageError(f"the signer has told of no key by the number {number}") from None

    def told(self, key: StoredKey) -> dict[str, Any]:
        """Return what a client knows a key by."""
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with self._lock:
            known_by = key.name, key.api_key_id, key.environment, key.ours, public
            number = self._numbers.setdefault(known_by, len(self._keys))
            if number == len(self._keys):
                self._keys.append(key)
        return {
            "number": number,
            "name": key.name,
            "api_key_id": key.api_key_id,
            "environment": key.environment,
            "ours": key.ours,
            "uri": key.uri,
            "public_key": base64.b64encode(public).decode(),
        }

    def answer(self, call: Any) -> object:
        """Return what a call asks for.

        Raises:
            UsageError: If there is no such call.
        """
        match call:
            case {"call": "keys"}:
                return [self.told(key) for key in self._store.keys()]
            case {"call": "key", "name": str(name)}:
                return self.told(self._store.key(name))
            case {"call": "find", "name": str(name), "public_key": str(public)}:
                return self._found(name, public)
            case {"call": "attributes", "number": int(number)}:
                return self[number].attributes()
            case {"call": "custody_facts", "number": int(number)}:
                return [asdict(fact) for fact in self[number].custody_facts()]
        raise UsageError("the signer has no such call")

    def _found(self, name: str, public: str) -> dict[str, Any]:
        """Return the key of that public half: under its name, or under the one that a rotation gave it."""
        with suppress(KeyNotFoundError):
            facts = self.told(self._store.key(name))
            if facts["public_key"] == public:
                return facts
        for key in self._store.keys():
            facts = self.told(key)
            if facts["public_key"] == public:
                return facts
        raise KeyNotFoundError(
            f"the key {name!r} is no longer in {self._store.describe()}", hint="it was destroyed; see `hsm-keys list`"
        )


class _Server:
    """Signs for the clients that connect."""

    def __init__(self, keys: _Keys) -> None:
        self._keys = keys
        self._greeting = frame_bytes(FrameKind.GREETING, os.urandom(8))
        self._room = threading.BoundedSemaphore(_MAX_CONNECTIONS)

    def run(self, listener: socket.socket, owner: socket.socket) -> None:
        """Take connections until the owner is gone."""
        while True:
            ready, _, _ = select.select([owner, listener], [], [])
            if owner in ready:
                return
            try:
                connection, _ = listener.accept()
            except OSError:  # no free descriptor, say: clients wait, and so does this thread
                select.select([owner], [], [], _PAUSE_S)
                continue
            with suppress(OSError):
                connection.setblocking(True)
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        if not peer_is_me(connection):
            connection.close()
        elif not self._room.acquire(blocking=False):
            _turn_away(connection, f"the signer has {_MAX_CONNECTIONS} connections, and takes no more")
        else:
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:
                self._room.release()
                _turn_away(connection, "the signer can't have another thread")

    def _serve(self, connection: socket.socket) -> None:
        with ExitStack() as ending, connection, suppress(OSError):
            ending.callback(self._room.release)
            try:
                connection.sendall(self._greeting)
                while (frame := receive(connection, MAX_MESSAGE)) is not None:
                    connection.sendall(self._answer(frame))
            except SignerWireError as error:
                connection.sendall(error_frame(UsageError(f"the signer doesn't understand: {error}")))

    def _answer(self, frame: Frame) -> bytes:
        try:
            if frame.kind is FrameKind.SIGN:
                return frame_bytes(FrameKind.SIGNATURE, self._keys[frame.number].sign(frame.payload))
            if frame.kind is FrameKind.SIGN_DIGEST:
                return frame_bytes(FrameKind.SIGNATURE, self._keys[frame.number].sign_digest(frame.payload))
            if frame.kind is FrameKind.SIGN_ALL:
                key = self._keys[frame.number]
                return frame_bytes(FrameKind.SIGNATURES, pack([key.sign(message) for message in unpack(frame.payload)]))
            if frame.kind is FrameKind.CALL:
                answer = json_frame(FrameKind.ANSWER, self._keys.answer(frame.json()))
                if len(answer) <= MAX_ANSWER:
                    return answer
                raise StoreUnavailableError("the store has too many keys to tell of them in one answer")
        except SignerWireError:
            raise
        except Exception as error:  # noqa: BLE001 - the client must be told of any error
            return error_frame(error)
        raise SignerWireError(f"a client sends no frame of the kind {frame.kind.name}")


def _turn_away(connection: socket.socket, reason: str) -> None:
    with connection:
        connection.sendall(error_frame(StoreUnavailableError(reason)))


def main() -> None:
    """Serve the owner on stdin until it closes its end, or is gone."""
    keep_to_itself()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the owner decides when it has signed its last request
    owner = socket.socket(fileno=os.dup(0))
    try:
        opening = receive(owner, MAX_MESSAGE)
        if opening is not None and opening.kind is FrameKind.OPEN:
            settings = opening.json()
            _sign_for(owner, settings["uri"], PrivateFolder(Path(settings["folder"])), force_pin=settings["force_pin"])
    except Exception as error:  # noqa: BLE001 - a traceback could show secrets of this process
        with suppress(OSError):
            owner.sendall(error_frame(error))
    os._exit(0)  # threads may hang in the module


def _sign_for(owner: socket.socket, uri: str, folder: PrivateFolder, *, force_pin: bool) -> None:
    store = _opened(uri, owner, force_pin=force_pin)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    others = os.umask(0o177)
    listener.bind(str(folder.socket))
    os.umask(others)
    inode = folder.socket.lstat().st_ino
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    owner.sendall(json_frame(FrameKind.READY, {"uri": store.uri, "description": store.describe()}))
    _Server(_Keys(store)).run(listener, owner)
    threading.Timer(_LAST_WORDS_S, os._exit, (0,)).start()
    with suppress(OSError), folder.locked(patience=0) as held:
        if held:
            folder.remove(inode)
    store.close()


def _opened(uri: str, owner: socket.socket, *, force_pin: bool) -> KeyStore:
    opening = threading.Event()
    opening.set()
    store = backend_of(uri).open_with(uri, _asking(owner, opening), force_pin=force_pin)
    opening.clear()
    return store


def _asking(owner: socket.socket, opening: threading.Event) -> PinGetter:
    """Return what gets the PIN from the owner, who has an ear for that while the store is being opened."""

    def ask(wanted: PinWanted) -> Pin | None:
        if not opening.is_set():
            if wanted.has_pad:
                return None
            raise PinMissingError(
                f"{wanted.token} wants its user PIN again, and the signer has none",
                hint="give a PIN when the store is opened",
            )
        owner.sendall(json_frame(FrameKind.PIN_WANTED, asdict(wanted)))
        answer = receive(owner, MAX_MESSAGE)
        if answer is None:  # the owner has no PIN, or is gone
            os._exit(0)
        if answer.kind is FrameKind.NO_PIN:
            return None
        return Pin(answer.payload.decode().partition("\0")[2], answer.payload.decode().partition("\0")[0])

    return ask
