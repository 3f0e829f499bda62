"""Errors of botocore mapped to errors of this package. AWS's text isn't kept: it can hold a token or a signature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.request import getproxies

from botocore import exceptions as boto  # type: ignore[import-untyped]  # botocore has no annotations

from hsm_keys.errors import AwsError, HsmKeysError, NetworkError, OutcomeUnknownError
from hsm_keys.logs import log_request
from hsm_keys.network_errors import why_not_reached
from hsm_keys.stores.awskms.errors import (
    AwsAccessDeniedError,
    AwsCredentialsError,
    AwsRegionError,
    AwsThrottledError,
    AwsUnavailableError,
    KmsGarbledAnswerError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsKeyStateError,
    KmsKeyUnsuitableError,
)
from hsm_keys.stores.awskms.no_credentials import no_credentials
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["KmsCall", "ask", "load_configuration", "refuses_credentials"]

_T = TypeVar("_T")

_CHANGES: Final = frozenset({"CreateKey", "ReplicateKey"})
"""What must not be sent twice: the second answer would be a second key, or hide the first."""

_THROTTLED: Final = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"})
_EXPIRED: Final = frozenset({"ExpiredTokenException", "ExpiredToken"})
_BAD_CREDENTIALS: Final = frozenset(
    {
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_UNAVAILABLE: Final = frozenset({"DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException"})
_UNSUITABLE: Final = frozenset({"InvalidKeyUsageException", "UnsupportedOperationException"})
_NOT_SENT: Final = (
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.ProxyConnectionError,
    boto.SSLError,
)
_LOST: Final = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
_NO_CREDENTIALS: Final = (
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.CredentialRetrievalError,
    boto.InvalidConfigError,
    boto.LoginError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
)
_BAD_REGION: Final = (boto.InvalidRegionError, boto.NoRegionError, boto.UnknownRegionError)

_PURPOSES: Final = {
    **dict.fromkeys(("Sign", "GetPublicKey", "ListResourceTags"), "sign"),
    **dict.fromkeys(("GetParametersForImport", "ImportKeyMaterial"), "generate"),
}
"""Which policy allows a call, where it isn't that for enrolling."""

_BY_TAG: Final = frozenset({"CreateAlias", "DeleteAlias", "ScheduleKeyDeletion", "Sign", "TagResource", "UpdateAlias"})
"""What the policies of this package allow by the tags and aliases of a key."""

_LATE: Final = (
    "; where they do, wait: a tag or alias of a moment ago can take AWS five minutes, and the same command goes on"
)

# The text of a denial: who, which action, on what, and why. Each part has a form that can't hold anything else.
_DENIAL = re.compile(
    r"User: (?P<who>arn:[\w:/+=,.@-]{1,400}) is not authorized to perform: (?P<action>kms:[A-Za-z]{1,40})"
    r"(?: on (?:this )?resource(?:: (?P<resource>arn:[\w:/*-]{1,300}))?)?(?P<why> because [A-Za-z0-9:,' -]{1,200})?"
)
_PLAIN = re.compile(r"[A-Za-z0-9.]{1,60}")


@dataclass(frozen=True, slots=True)
class KmsCall:
    """A call of KMS, for the words of an error.

    Args:
        operation: The API's name of it, such as ``Sign``.
        key: What people call the key; empty where there is none.
        region: The Region that is asked.
        spec: KMS's name of the key's type, where it is known.
    """

    operation: str
    key: str
    region: str
    spec: str = ""

    def __str__(self) -> str:
        of_key = f" of the key {shown(self.key)}" if self.key else ""
        return f"{self.operation}{of_key} in {self.region}"


def ask(call: KmsCall, function: Callable[..., _T], **parameters: Any) -> _T:
    """Call botocore, and raise ours for whatever it raises.

    What it raised is let go before ours is raised: request, credentials and answer hang on its frames.

    Raises:
        AwsError: If AWS or KMS refuses, or answers nonsense.
        NetworkError: If there is no answer.
    """
    log_request("KMS", call)
    try:
        return function(**parameters)
    except HsmKeysError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore lets urllib3's, json's and its providers' own pass
        failure = _mapped(error, call)
    raise failure


def load_configuration(function: Callable[..., _T], **parameters: Any) -> _T:
    """Call what reads AWS's configuration or gets credentials: a chain of providers, each with its own exceptions.

    Raises:
        AwsCredentialsError: If it fails.
    """
    try:
        return function(**parameters)
    except HsmKeysError:
        raise
    except Exception as error:  # noqa: BLE001 - a file, a program, an HTTP server or STS may be behind it
        failure = no_credentials(error)
    raise failure


def refuses_credentials(answer: Mapping[str, Any]) -> bool:
    """Tell whether AWS refuses the credentials themselves, in an answer as botocore parses it."""
    return _code_of(answer) in _EXPIRED | _BAD_CREDENTIALS


def _code_of(answer: Mapping[str, Any]) -> str:
    return str((answer.get("Error") or {}).get("Code") or "").rpartition("#")[2]


def _mapped(error: Exception, call: KmsCall) -> HsmKeysError:
    if isinstance(error, boto.ClientError):
        return _refused(error, call)
    for kinds, tell in _TOLD:
        if isinstance(error, kinds):
            return tell(error, call)
    # json, base64 and text decoding fail with ValueError and its like, botocore's parsers with their own.
    return KmsGarbledAnswerError(
        f"the answer to {call} can't be read ({type(error).__name__})",
        hint="check that the endpoint (AWS_ENDPOINT_URL_KMS, a proxy) is really KMS, then try again",
    )


def _unreachable(error: Exception, call: KmsCall) -> HsmKeysError:
    why = why_not_reached(error)
    how = "can't be trusted" if isinstance(error, boto.SSLError) else "can't be reached"
    how += f" ({why})" if why else ""
    if isinstance(error, boto.ConnectTimeoutError):
        how = "didn't accept a connection in time"
    return NetworkError(
        f"KMS in {call.region} {how}; {call.operation} was not sent",
        hint=f"check the network, the VPC endpoint, AWS_ENDPOINT_URL_KMS and AWS_CA_BUNDLE{_by_a_proxy()}",
    )


def _by_a_proxy() -> str:
    """Return what names a proxy of the network, for a hint; botocore doesn't read ``ALL_PROXY``."""
    return ", and HTTPS_PROXY, which names a proxy" if getproxies().get("https") else ""


def _lost(error: Exception, call: KmsCall) -> HsmKeysError:
    how = (
        "didn't answer in time" if isinstance(error, boto.ReadTimeoutError) else "closed the connection without answer"
    )
    if call.operation in _CHANGES:
        return OutcomeUnknownError(
            f"KMS in {call.region} {how}; whether {call.operation} was carried out isn't known",
            hint="run the same command again in a minute: it looks for the key before it makes one",
        )
    return NetworkError(
        f"KMS in {call.region} {how} ({call.operation})",
        hint="try again; raise budget-ms in the store's URI if the network is slow",
    )


def _refused(error: Any, call: KmsCall) -> HsmKeysError:
    """Return what stands for an answer with an error code."""
    words = error.response.get("Error") or {}
    code = _code_of(error.response)
    status = (error.response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    tell = _REFUSALS.get(code)
    if tell is not None:
        return tell(_Refusal(code, str(words.get("Message") or ""), call))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _throttled(_Refusal(code, "", call))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unavailable(_Refusal(code, "", call))
    return AwsError(f"KMS refuses {call}: {_plain(code)}", hint=_HINTS.get(code, ""))


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An error answer. The text is read for a few known words, and never repeated."""

    code: str
    text: str
    call: KmsCall


def _plain(code: str) -> str:
    return code if _PLAIN.fullmatch(code) else "an unreadable error"


def _throttled(refusal: _Refusal) -> HsmKeysError:
    call = refusal.call
    quota = f"{call.operation} request rate"
    if call.operation == "Sign":
        kind = "ECC" if call.spec.startswith("ECC") else "RSA"
        quota = f"Cryptographic operations ({kind}) request rate"
    return AwsThrottledError(
        f'KMS throttles {call}: the quota "{quota}" of this account and Region is used up',
        hint="every key and program of the account shares it: slow down, or have it raised in Service Quotas",
    )


def _denied(refusal: _Refusal) -> HsmKeysError:
    call, denial = refusal.call, _DENIAL.search(refusal.text)
    action = denial["action"] if denial else f"kms:{call.operation}"
    on = denial["resource"] if denial and denial["resource"] else f"the key {shown(call.key)}" if call.key else "KMS"
    who = f" to {denial['who']}" if denial else ""
    why = denial["why"] if denial and denial["why"] else ""
    purpose = _PURPOSES.get(call.operation, "enroll")
    late = _LATE if call.operation in _BY_TAG else ""
    return AwsAccessDeniedError(
        f"AWS denies {action} on {on}{who}{why}",
        hint=f"allow {action} in the caller's IAM policy and in the key policy; `hsm-keys kms policy --for {purpose}` "
        f"prints both{late}",
    )


def _expired(refusal: _Refusal) -> HsmKeysError:  # noqa: ARG001 - one signature for all
    return AwsCredentialsError("the AWS credentials have expired", hint="log in again, or renew the session token")


def _bad_credentials(refusal: _Refusal) -> HsmKeysError:
    code, text = refusal.code, refusal.text.lower()
    if code == "RequestExpired" or "expired" in text or "not yet current" in text:
        return AwsCredentialsError(
            "AWS refuses the request as too old or too new", hint="set this machine's clock (NTP), then try again"
        )
    return AwsCredentialsError(
        f"AWS doesn't accept these credentials ({code})",
        hint="check AWS_ACCESS_KEY_ID and AWS_PROFILE with `aws sts get-caller-identity`",
    )


def _not_found(refusal: _Refusal) -> HsmKeysError:
    call = refusal.call
    if call.key:
        return KmsKeyNotFoundError(
            f"KMS in {call.region} has no key {shown(call.key)} in this account",
            hint="check Region and account; `hsm-keys --kms list` shows the keys, `hsm-keys --kms enroll` makes one",
        )
    return KmsKeyNotFoundError(
        f"KMS in {call.region} has nothing that {call.operation} asks for",
        hint="check Region and account; `hsm-keys --kms list` shows the keys",
    )


def _unsuitable(refusal: _Refusal) -> HsmKeysError:
    return KmsKeyUnsuitableError(
        f"{refusal.call}: KMS says that the key isn't made for this ({refusal.code})",
        hint="a key for Kalshi is RSA or ECC_NIST_EDWARDS25519 with the usage SIGN_VERIFY; both are fixed when "
        "it is made: hsm-keys --kms enroll makes one",
    )


def _unavailable(refusal: _Refusal) -> HsmKeysError:
    return AwsUnavailableError(f"{refusal.call}: KMS itself failed ({_plain(refusal.code)})", hint="try again")


def _unusable(refusal: _Refusal) -> HsmKeysError:
    """Return the error for the key's state. A key pending deletion answers with either of the two codes."""
    call, text = refusal.call, refusal.text
    name = call.key or "KEY"
    if "pending deletion" in text or "pending replica deletion" in text:
        return KmsKeyPendingDeletionError(
            f"the key {name!r} in {call.region} is pending deletion",
            hint="until its deletion date it can be saved: aws kms cancel-key-deletion --key-id ID, then aws kms "
            f"enable-key --key-id ID (hsm-keys show {name} tells the id and the date)",
        )
    if "disabled" in text:
        return KmsKeyDisabledError(
            f"the key {name!r} in {call.region} is disabled",
            hint=f"if it should sign again: aws kms enable-key --key-id ID (hsm-keys show {name} tells the id)",
        )
    return KmsKeyStateError(
        f"the key {name!r} in {call.region} is in a state that doesn't allow {call.operation}",
        hint=f"see its state: hsm-keys show {name}; a new replica is ready after a minute",
    )


def _failed(error: Exception, call: KmsCall) -> HsmKeysError:
    return AwsError(f"{call} failed: {type(error).__name__}", hint="check AWS's own configuration and variables")


def _bad_region(error: Exception, call: KmsCall) -> HsmKeysError:  # noqa: ARG001 - one signature for all
    return AwsRegionError(f"AWS knows no Region {call.region!r}", hint="give a Region such as us-east-1")


_TOLD: Final = (
    (_NO_CREDENTIALS, lambda error, _: no_credentials(error)),
    (_BAD_REGION, _bad_region),
    (_NOT_SENT, _unreachable),
    (_LOST, _lost),
    ((boto.BotoCoreError,), _failed),
)

_REFUSALS: Final = {
    **dict.fromkeys(_THROTTLED, _throttled),
    **dict.fromkeys(("AccessDenied", "AccessDeniedException"), _denied),
    **dict.fromkeys(_EXPIRED, _expired),
    **dict.fromkeys(_BAD_CREDENTIALS, _bad_credentials),
    **dict.fromkeys(("DisabledException", "KMSInvalidStateException"), _unusable),
    **dict.fromkeys(_UNSUITABLE, _unsuitable),
    **dict.fromkeys(_UNAVAILABLE, _unavailable),
    "NotFoundException": _not_found,
}

_HINTS: Final = {
    "InvalidArnException": "check the ARN, and that its Region is the one that is asked",
    "LimitExceededException": "the account has reached a limit of KMS resources: see Service Quotas",
    "MalformedPolicyDocumentException": "check the key policy: hsm-keys kms policy prints one that works",
    "TagException": "an API key id that KMS can't keep as a tag: give --api-key-id to every command",
    "ValidationException": "check the name and the options of the key",
}
