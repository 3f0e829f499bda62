"""Errors of OpenBao and Vault, one class for each reason.

::

    VaultError                       3  also a StoreUnavailableError: the server refuses
    ├── VaultAccessDeniedError          also a NotPermittedError: the token's policies don't allow it
    ├── VaultTokenError                 no token, an expired or a wrong one
    ├── VaultGarbledAnswerError         also a SigningError: an answer that is none
    ├── VaultKeyUnsuitableError         a key of another type, or derived
    └── VaultDownError                  this server can't answer now; another one might
        ├── VaultSealedError
        ├── VaultStandbyError           and it doesn't pass requests on
        └── VaultThrottledError         a rate limit quota is used up
    VaultKeyNotFoundError            5  a KeyNotFoundError

No answer at all is a NetworkError (7), or an OutcomeUnknownError (7) for a call that changes something.
"""

from __future__ import annotations

from hsm_keys.errors import KeyNotFoundError, NotPermittedError, SigningError, StoreUnavailableError

__all__ = [
    "VaultAccessDeniedError",
    "VaultDownError",
    "VaultError",
    "VaultGarbledAnswerError",
    "VaultKeyNotFoundError",
    "VaultKeyUnsuitableError",
    "VaultSealedError",
    "VaultStandbyError",
    "VaultThrottledError",
    "VaultTokenError",
]


class VaultError(StoreUnavailableError):
    """OpenBao or Vault refused."""

    code = "vault"


class VaultAccessDeniedError(VaultError, NotPermittedError):
    """The server knows the token, and its policies don't allow the call."""

    code = "vault_access_denied"


class VaultTokenError(VaultError):
    """There is no token, or the server doesn't take it (any more)."""

    code = "vault_token"


class VaultGarbledAnswerError(VaultError, SigningError):
    """The answer can't be read, lacks what it should hold, or holds a signature that doesn't verify."""

    code = "vault_garbled_answer"


class VaultKeyUnsuitableError(VaultError):
    """The key can't sign Kalshi requests."""

    code = "vault_key_unsuitable"


class VaultDownError(VaultError):
    """This server can't answer now."""

    code = "vault_down"


class VaultSealedError(VaultDownError):
    """The server is sealed: it can't read its own storage."""

    code = "vault_sealed"


class VaultStandbyError(VaultDownError):
    """The server is a standby: it doesn't pass requests on to the active one, or lags behind it."""

    code = "vault_standby"


class VaultThrottledError(VaultDownError):
    """A rate limit quota of the server is used up."""

    code = "vault_throttled"


class VaultKeyNotFoundError(KeyNotFoundError):
    """There is no such key, or the Transit key is gone that its entry names."""

    code = "vault_key_not_found"
