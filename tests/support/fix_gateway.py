"""A FIX gateway that judges Logons (35=A) as Kalshi documents it; simplefix reads them, cryptography verifies them."""

from __future__ import annotations

import socket
import threading
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import simplefix
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_CLOCK_S = 30


@dataclass
class FixGateway:
    """Serves one connection after the other on loopback; each must begin with a good Logon for its key."""

    api_key_id: str
    public_key: RSAPublicKey | Ed25519PublicKey
    target: str = "KalshiNR"
    verdicts: list[str] = field(default_factory=list)
    """``good``, or what was wrong, one a Logon."""
    judged: threading.Event = field(default_factory=threading.Event)
    """Set when the first Logon was judged."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self._thread.join()
        self._listener.close()

    def hang_up(self) -> None:
        """Cut the connection that is open."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError):  # the client was first
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        parser = simplefix.FixParser()
        while data := self._receive(connection):
            parser.append_buffer(data)
            while (message := parser.get_message()) is not None:
                if message.get(35) == b"A":
                    verdict = self.judge(message)
                    self.verdicts.append(verdict)
                    self.judged.set()
                    connection.sendall(self._answer(verdict))

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        try:
            return connection.recv(65536)
        except OSError:
            return b""

    def judge(self, message: simplefix.FixMessage) -> str:
        """Return ``good``, or what is wrong with a Logon."""
        sending_time, number, sender, target = (message.get(tag) for tag in (52, 34, 49, 56))
        signature = message.get(96)
        if None in (sending_time, number, sender, target, signature):
            return "a field is missing"
        if message.get(95) != str(len(signature)).encode():
            return "RawDataLength"
        if sender != self.api_key_id.encode() or target != self.target.encode():
            return "CompID"
        sent = datetime.strptime(sending_time.decode(), "%Y%m%d-%H:%M:%S.%f").replace(tzinfo=UTC)
        if abs((datetime.now(UTC) - sent).total_seconds()) > _CLOCK_S:
            return "SendingTime"
        signed = b"\x01".join((sending_time, b"A", number, sender, target))
        try:
            raw = b64decode(signature, validate=True)
            if isinstance(self.public_key, Ed25519PublicKey):
                self.public_key.verify(raw, signed)
            else:
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
                self.public_key.verify(raw, signed, pss, hashes.SHA256())
        except (InvalidSignature, ValueError):
            return "signature"
        return "good"

    def _answer(self, verdict: str) -> bytes:
        answer = simplefix.FixMessage()
        answer.append_pair(8, "FIXT.1.1", header=True)
        answer.append_pair(35, "A" if verdict == "good" else "5", header=True)
        answer.append_pair(49, self.target, header=True)
        answer.append_pair(56, self.api_key_id, header=True)
        answer.append_pair(34, 1, header=True)
        answer.append_pair(52, datetime.now(UTC).strftime("%Y%m%d-%H:%M:%S.000"), header=True)
        if verdict == "good":
            answer.append_pair(98, 0)
            answer.append_pair(108, 30)
            answer.append_pair(141, "Y")
            answer.append_pair(1137, 9)  # required in FIXT.1.1
        else:
            answer.append_pair(58, verdict)
        encoded: bytes = answer.encode()
        return encoded
