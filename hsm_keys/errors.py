"""One exception tree: what happened, what to do next, and the exit code of the command line.

::

    HsmKeysError                    1  unexpected
    ├── UsageError                  2  the call itself is wrong; nothing was done
    ├── StoreError                  3  module, token or store: not found, ambiguous, gone
    │   ├── StoreNotFoundError
    │   ├── StoreAmbiguousError
    │   └── StoreUnavailableError
    ├── PinError                    4  wrong, missing, locked or about to lock
    │   ├── PinMissingError
    │   ├── PinIncorrectError
    │   └── PinLockedError
    ├── KeyProblemError             5  a key: not found, exists, ambiguous, busy, extractable
    │   ├── KeyNotFoundError
    │   ├── KeyExistsError
    │   ├── KeyAmbiguousError
    │   ├── KeyBusyError
    │   ├── KeyNotRegisteredError
    │   ├── WrongEnvironmentError
    │   ├── ForeignKeyError
    │   ├── CustodyError
    │   └── SigningError
    ├── KalshiError                 6  Kalshi refused (hsm_keys.kalshi.errors has the statuses)
    ├── NetworkError                7  no answer; nothing was sent
    │   └── OutcomeUnknownError     7  no answer; the work may have been done
    │       └── EndNotProvedError   7  nobody knows whether an API key is dead; nothing was destroyed
    ├── CloudError                  8  a cloud's key service refused
    │   └── AwsError                8  KMS or AWS refused
    ├── KeyUnusableError               also one of the store's own: the key is there, and in no state to sign
    └── NotPermittedError              also one of the store's own: it knows who asks, and doesn't allow the call

A message never holds a PIN, a private key or a signature.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "AwsError",
    "CloudError",
    "CustodyError",
    "EndNotProvedError",
    "ForeignKeyError",
    "HsmKeysError",
    "KalshiError",
    "KeyAmbiguousError",
    "KeyBusyError",
    "KeyExistsError",
    "KeyNotFoundError",
    "KeyNotRegisteredError",
    "KeyProblemError",
    "KeyUnusableError",
    "NetworkError",
    "NotPermittedError",
    "OutcomeUnknownError",
    "PinError",
    "PinIncorrectError",
    "PinLockedError",
    "PinMissingError",
    "SigningError",
    "StoreAmbiguousError",
    "StoreError",
    "StoreNotFoundError",
    "StoreUnavailableError",
    "UsageError",
    "WrongEnvironmentError",
]


class HsmKeysError(Exception):
    """Something went wrong, and this says what.

    Args:
        message: What happened and why, in one or two sentences.
        hint: What to do next; empty when there is nothing sensible to say.

    ``code`` is a stable word for programs, ``exit_code`` what the command line exits with.
    """

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def amend(self, *, message: str | None = None, hint: str | None = None, further_hint: str = "") -> Self:
        """Change what this error says, where more is known than where it was raised, and return it.

        Args:
            message: Stands in place of the message.
            hint: Stands in place of the hint.
            further_hint: Follows the hint.
        """
        if message is not None:
            self.message = message
            self.args = (message,)
        hint = self.hint if hint is None else hint
        self.hint = "; ".join(part for part in (hint, further_hint) if part)
        return self

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(HsmKeysError):
    """The call itself is wrong: a bad URI, path, scope or option. Nothing was done."""

    code = "usage"
    exit_code = 2


class StoreError(HsmKeysError):
    """The module, token or store that should hold the keys is the problem."""

    code = "store"
    exit_code = 3


class StoreNotFoundError(StoreError):
    """No module, token or store matches what was asked for."""

    code = "store_not_found"


class StoreAmbiguousError(StoreError):
    """More than one token matches what was asked for; the message lists them."""

    code = "store_ambiguous"


class StoreUnavailableError(StoreError):
    """The store was there and stopped answering, or refuses what it should do."""

    code = "store_unavailable"


class PinError(HsmKeysError):
    """The token's user PIN is the problem. A PIN is tried once and never again."""

    code = "pin"
    exit_code = 4


class PinMissingError(PinError):
    """The token wants a PIN, and no source of one was given."""

    code = "pin_missing"


class PinIncorrectError(PinError):
    """The token refused the PIN."""

    code = "pin_incorrect"


class PinLockedError(PinError):
    """The PIN is locked, or one more wrong try would lock it."""

    code = "pin_locked"


class KeyProblemError(HsmKeysError):
    """A key in the store is the problem."""

    code = "key"
    exit_code = 5


class KeyNotFoundError(KeyProblemError):
    """The store has no key of that name."""

    code = "key_not_found"


class KeyExistsError(KeyProblemError):
    """The store already has a key of that name."""

    code = "key_exists"


class KeyAmbiguousError(KeyProblemError):
    """Two private keys of the store carry the same name."""

    code = "key_ambiguous"


class KeyBusyError(KeyProblemError):
    """Another run is working on the key, or has changed it in the meantime."""

    code = "key_busy"


class KeyNotRegisteredError(KeyProblemError):
    """The key has no API key id yet, so Kalshi can't know it."""

    code = "key_not_registered"


class WrongEnvironmentError(KeyProblemError):
    """The key belongs to another environment of Kalshi's than the one at hand; the message names both."""

    code = "wrong_environment"


class ForeignKeyError(KeyProblemError):
    """The key is in the store, and hsm-keys has neither made nor adopted it: somebody else's, and left alone."""

    code = "foreign_key"


class CustodyError(KeyProblemError):
    """The store doesn't keep the private half in: it can be read, or could have been."""

    code = "custody"


class SigningError(KeyProblemError):
    """The store signed nothing, or something that doesn't verify."""

    code = "signing"


class KalshiError(HsmKeysError):
    """Kalshi refused the request."""

    code = "kalshi"
    exit_code = 6


class NetworkError(HsmKeysError):
    """Kalshi couldn't be reached, or didn't answer a request that changes nothing."""

    code = "network"
    exit_code = 7


class OutcomeUnknownError(NetworkError):
    """A request that changes something got no answer: it may have been carried out."""

    code = "outcome_unknown"


class EndNotProvedError(OutcomeUnknownError):
    """It isn't known whether an API key is dead: what answered doesn't prove it. Nothing was destroyed."""

    code = "end_not_proved"


class CloudError(HsmKeysError):
    """A cloud's key service refused. Each service has a class of its own below this one."""

    code = "cloud"
    exit_code = 8


class AwsError(CloudError):
    """AWS or KMS refused."""

    code = "aws"


class KeyUnusableError(HsmKeysError):
    """The key is there and can't be used in the state it is in. Each store has a class of its own below this one."""


class NotPermittedError(HsmKeysError):
    """A store knows who asks, and doesn't allow the call. Each store has a class of its own below this one."""
