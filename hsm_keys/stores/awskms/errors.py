"""Errors of AWS and KMS, one class for each reason.

::

    AwsError                          8
    ├── AwsAccessDeniedError             also a NotPermittedError: a permission is missing
    ├── AwsCredentialsError              missing, expired or wrong
    ├── AwsRegionError                   no Region, or an unknown one
    ├── AwsThrottledError                a quota of requests is used up
    ├── AwsUnavailableError              KMS itself failed (5xx)
    ├── KmsGarbledAnswerError            also a SigningError: an answer that is none
    ├── KmsKeyNotFoundError              also a KeyNotFoundError
    ├── KmsKeyStateError                 also a KeyUnusableError: the key can't be used now
    │   ├── KmsKeyDisabledError
    │   └── KmsKeyPendingDeletionError
    └── KmsKeyUnsuitableError            a key of another type or usage
        └── KmsKeyNotPinnedError         another key than the store's URI pins

No answer at all is a NetworkError (7), or an OutcomeUnknownError (7) for a call that makes a key.
"""

from __future__ import annotations

from hsm_keys.errors import AwsError, KeyNotFoundError, KeyUnusableError, NotPermittedError, SigningError

__all__ = [
    "AwsAccessDeniedError",
    "AwsCredentialsError",
    "AwsRegionError",
    "AwsThrottledError",
    "AwsUnavailableError",
    "KmsGarbledAnswerError",
    "KmsKeyDisabledError",
    "KmsKeyNotFoundError",
    "KmsKeyNotPinnedError",
    "KmsKeyPendingDeletionError",
    "KmsKeyStateError",
    "KmsKeyUnsuitableError",
]


class AwsAccessDeniedError(AwsError, NotPermittedError):
    """AWS knows the caller and denies the action."""

    code = "aws_access_denied"


class AwsCredentialsError(AwsError):
    """There are no credentials, or AWS doesn't take them."""

    code = "aws_credentials"


class AwsRegionError(AwsError):
    """No Region was named, or the one that was isn't usable."""

    code = "aws_region"


class AwsThrottledError(AwsError):
    """The account has used up a quota of requests a second."""

    code = "aws_throttled"


class AwsUnavailableError(AwsError):
    """KMS answered that it can't answer now."""

    code = "aws_unavailable"


class KmsGarbledAnswerError(AwsError, SigningError):
    """The answer can't be read, lacks what it should hold, or holds a signature that doesn't verify."""

    code = "kms_garbled_answer"


class KmsKeyNotFoundError(AwsError, KeyNotFoundError):
    """KMS has no such alias or key in that account and Region."""

    code = "kms_key_not_found"


class KmsKeyStateError(AwsError, KeyUnusableError):
    """The key is there and can't be used in the state it is in."""

    code = "kms_key_state"


class KmsKeyDisabledError(KmsKeyStateError):
    """Somebody disabled the key."""

    code = "kms_key_disabled"


class KmsKeyPendingDeletionError(KmsKeyStateError):
    """The key waits for its deletion, which can still be cancelled."""

    code = "kms_key_pending_deletion"


class KmsKeyUnsuitableError(AwsError):
    """The key can't sign Kalshi requests: symmetric, for encryption, of another curve or in one Region only."""

    code = "kms_key_unsuitable"


class KmsKeyNotPinnedError(KmsKeyUnsuitableError):
    """The alias points to another key than the one that the store's URI pins."""

    code = "kms_key_not_pinned"
