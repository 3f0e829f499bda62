"""A store for which another process signs. Its keys can sign; nothing changes them."""

from __future__ import annotations

import base64
import json
import os
import weakref
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cryptography.hazmat.primitives import serialization

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import SigningError, StoreUnavailableError, UsageError
from hsm_keys.signing.algorithms import KeyType, signature_length, verifies
from hsm_keys.signing.together import SignsTogether
from hsm_keys.stores.base import KeyStore, StoredKey
from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict, Topic
from hsm_keys.stores.isolated.connection import NotSentError, SignerConnection, garbled
from hsm_keys.stores.isolated.wire import MAX_MESSAGE, FrameKind, SignerWireError, error_in, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.isolated.process import SignerProcess
    from hsm_keys.stores.isolated.wire import Frame

__all__ = ["IsolatedKey", "IsolatedStore"]


class IsolatedKey(StoredKey, SignsTogether):
    """A key pair that the signer's process signs with."""

    def __init__(self, store: IsolatedStore, facts: dict[str, Any], instance: int) -> None:
        self.name = facts["name"]
        self.api_key_id = facts["api_key_id"]
        self.environment = facts["environment"]
        self.ours = facts["ours"]
        self.uri = facts["uri"]
        self._store = store
        self._spki: str = facts["public_key"]
        self._public_key: PublicKey = serialization.load_der_public_key(base64.b64decode(self._spki))  # type: ignore[assignment]  # the store has no others
        self._signature_length = signature_length(self._public_key)
        # One tuple, replaced as a whole: which run of the signer, and the key's number in it.
        self._bound: tuple[int, int] = (instance, facts["number"])
        self._proved_by: int | None = None

    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self._public_key

    def current(self) -> StoredKey:
        """Return the key that carries this key's name now."""
        return self._store.key(self.name)

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return what the store says about the private half."""
        attributes: dict[str, bool | str | int | None] = self._ask("attributes")
        return attributes

    def custody_facts(self) -> list[CustodyFact]:
        """Return what speaks for and against custody."""
        return [
            CustodyFact(**{**fact, "verdict": CustodyVerdict(fact["verdict"]), "topic": Topic(fact["topic"])})
            for fact in self._ask("custody_facts")
        ]

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made by the signer's process.

        The first one of each of its runs is verified here.

        Raises:
            UsageError: If the message is longer than 64 KiB.
            StoreError: If the signer can't be reached, or its store can't.
            SigningError: If it refuses, or gives something that doesn't verify.
        """
        return self._signed(FrameKind.SIGN, message)

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Return the RSASSA-PSS signature over a SHA-256 digest, where the store makes such.

        Raises:
            StoreError: If the signer can't be reached, or its store can't.
            SigningError: If it refuses, or gives something that doesn't verify.
        """
        return self._signed(FrameKind.SIGN_DIGEST, digest)

    def sign_all(self, messages: Sequence[bytes], /) -> list[bytes]:
        """Return the signatures over messages, in their order, with one wait for the signer's process.

        Raises:
            UsageError: If the messages are longer than 64 KiB together.
            StoreError: If the signer can't be reached, or its store can't.
            SigningError: If it refuses, or gives something that doesn't verify.
        """
        payload, instance = self._answered(FrameKind.SIGN_ALL, pack(messages), FrameKind.SIGNATURES)
        try:
            signatures = unpack(payload)
        except SignerWireError as error:
            raise garbled(error) from None
        if len(signatures) != len(messages):
            raise SigningError(f"the signer gave {len(signatures)} signatures instead of {len(messages)}")
        for message, signature in zip(messages, signatures, strict=True):
            self._check(instance, message, signature)
        return signatures

    def _signed(self, kind: FrameKind, message: bytes) -> bytes:
        if not isinstance(message, bytes):
            raise TypeError(f"a message to sign is bytes, not {type(message).__name__}")
        signature, instance = self._answered(kind, message, FrameKind.SIGNATURE)
        self._check(instance, message, signature, digest=kind is FrameKind.SIGN_DIGEST)
        return signature

    def _answered(self, kind: FrameKind, payload: bytes, wanted: FrameKind) -> tuple[bytes, int]:
        """Return what the signer answers to something that is to be signed, and which run of it that was."""
        if len(payload) > MAX_MESSAGE:
            raise UsageError(f"an isolated signer takes messages of at most {MAX_MESSAGE} bytes, not {len(payload)}")

        def ask(connection: SignerConnection) -> tuple[int, Frame]:
            return connection.instance, self._on(connection, lambda number: connection.ask(kind, payload, number))

        instance, answer = self._store.run(ask)
        return _expected(answer, wanted).payload, instance

    def _check(self, instance: int, message: bytes, signature: bytes, *, digest: bool = False) -> None:
        """Check a signature: the first one of each run of the signer is verified."""
        if len(signature) != self._signature_length:
            raise SigningError(
                f"the signer gave a signature of {len(signature)} bytes instead of {self._signature_length}"
            )
        if self._proved_by != instance:
            if not verifies(self._public_key, message, signature, digest=digest):
                raise SigningError(f"the signer's signature with the key {self.name!r} doesn't verify")
            self._proved_by = instance

    def _ask(self, call: str) -> Any:
        def ask(connection: SignerConnection) -> Frame:
            return self._on(connection, lambda number: connection.call(_call(call, number=number)))

        return _expected(self._store.run(ask), FrameKind.ANSWER).json()

    def _on(self, connection: SignerConnection, ask: Callable[[int], Frame]) -> Frame:
        """Return the answer to what ``ask`` asks about this key; a signer that was started anew finds it first."""
        instance, number = self._bound
        if instance != connection.instance:
            answer = connection.call(_call("find", name=self.name, public_key=self._spki))
            if answer.kind is not FrameKind.ANSWER:
                return answer
            number = answer.json()["number"]
            self._bound = connection.instance, number
        return ask(number)


class IsolatedStore(KeyStore):
    """A store that a process of its own has open, for this process and those that it forks.

    Args:
        process: The signer's process, started.
    """

    def __init__(self, process: SignerProcess) -> None:
        self.uri = process.told["uri"]
        self._description: str = process.told["description"]
        self._process = process
        self._closed = False
        self._idle: list[SignerConnection] = []
        self._every: set[SignerConnection] = set()
        _all.add(self)

    def run(self, work: Callable[[SignerConnection], Any]) -> Any:
        """Return what the work gives, with a connection that nobody else uses.

        Raises:
            StoreUnavailableError: If the store is closed, or the signer is gone and can't be started now.
        """
        while True:
            connection, fresh = self._taken()
            try:
                outcome = work(connection)
            except NotSentError:
                self._discard(connection)
                if fresh:
                    raise StoreUnavailableError(
                        "the signer process ended before the request", hint="sign again: that starts it anew"
                    ) from None
                continue
            except BaseException:
                self._discard(connection)
                raise
            self._idle.append(connection)
            if self._closed:
                self._close_idle()
            return outcome

    def _taken(self) -> tuple[SignerConnection, bool]:
        if self._closed:
            raise StoreUnavailableError("the store is closed", hint="open it again")
        try:
            return self._idle.pop(), False
        except IndexError:
            connection = self._process.connect()
            self._every.add(connection)
            return connection, True

    def _discard(self, connection: SignerConnection) -> None:
        self._every.discard(connection)
        connection.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._discard(self._idle.pop())

    def describe(self) -> str:
        """Return what people call the store."""
        return self._description

    def keys(self) -> list[StoredKey]:
        """Return every key that can sign Kalshi requests, sorted by name."""
        facts, instance = self._told(_call("keys"))
        return [IsolatedKey(self, each, instance) for each in facts]

    @takes_no_private_key
    def key(self, name: str) -> StoredKey:
        """Return the key of that name."""
        facts, instance = self._told(_call("key", name=name))
        return IsolatedKey(self, facts, instance)

    def _told(self, call: bytes) -> tuple[Any, int]:
        def ask(connection: SignerConnection) -> tuple[Frame, int]:
            return connection.call(call), connection.instance

        answer, instance = self.run(ask)
        return _expected(answer, FrameKind.ANSWER).json(), instance

    def refusal(self) -> UsageError:
        """Return that it only signs."""
        return _signs_only()

    def generate(
        self,
        name: str,  # noqa: ARG002 - the store's shape
        key_type: KeyType = KeyType.RSA_2048,  # noqa: ARG002 - the store's shape
        environment: str | None = None,  # noqa: ARG002 - the store's shape
    ) -> NoReturn:
        """Refuse: an isolated store signs, and changes nothing."""
        raise _signs_only()

    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> NoReturn:  # noqa: ARG002
        """Refuse: an isolated store signs, and changes nothing."""
        raise _signs_only()

    def destroy(self, key: StoredKey) -> NoReturn:  # noqa: ARG002
        """Refuse: an isolated store signs, and changes nothing."""
        raise _signs_only()

    def close(self) -> None:
        """Close the connections, and end the signer if this process has started it."""
        if self._closed:
            return
        self._closed = True
        self._close_idle()
        for connection in list(self._every):
            connection.abort()
        self._process.end()

    def forget(self) -> None:
        """Let go of the parent's connections, in a forked child."""
        for connection in self._every:
            connection.close()
        self._every, self._idle = set(), []


def _call(call: str, **arguments: str | int) -> bytes:
    return json.dumps({"call": call, **arguments}).encode()


def _expected(frame: Frame, kind: FrameKind) -> Frame:
    if frame.kind is kind:
        return frame
    if frame.kind is FrameKind.ERROR:
        raise error_in(frame)
    raise StoreUnavailableError(f"the signer answered with a frame of the kind {frame.kind.name}")


def _signs_only() -> UsageError:
    return UsageError(
        "an isolated store only signs: it makes, changes and destroys no keys",
        hint="open the store without isolated=True for that, or use the command line",
    )


_all: Final[weakref.WeakSet[IsolatedStore]] = weakref.WeakSet()


def _forget_all() -> None:
    for store in _all:
        store.forget()


os.register_at_fork(after_in_child=_forget_all)
