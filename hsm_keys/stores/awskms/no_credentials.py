"""Why there are no AWS credentials: botocore's reason, and files that its variables name and that don't exist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto  # type: ignore[import-untyped]  # botocore has no annotations

from hsm_keys.stores.awskms.errors import AwsCredentialsError
from hsm_keys.values import describe, shown, shown_path, what_is_round

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["no_credentials", "no_credentials_at_all"]

_FILES: Final = (
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
"""Variables that name a file with credentials, or with what leads to some."""

_ADDRESS: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"


def no_credentials_at_all() -> AwsCredentialsError:
    """Return the error that all of AWS's providers have none."""
    return _named_files("there are no AWS credentials") or AwsCredentialsError(
        "there are no AWS credentials",
        hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in, or attach a role",
    )


def no_credentials(error: Exception) -> AwsCredentialsError:
    """Return the error that stands for what botocore or a provider raised; its text isn't kept."""
    for kind, tell in _TOLD:
        if isinstance(error, kind):
            return tell(error)
    failed = f"AWS's credentials can't be loaded ({type(error).__name__})"
    if isinstance(error, OSError) and (named := _named_files(failed)):
        return named
    if isinstance(error, ValueError) and os.environ.get(_ADDRESS):
        return AwsCredentialsError(
            f"{_ADDRESS} isn't the address of credentials: {describe(os.environ[_ADDRESS])}",
            hint="give a URL, with https or on loopback",
        )
    return AwsCredentialsError(failed, hint="log in again, and try `aws sts get-caller-identity`")


def _unreadable(error: Any) -> AwsCredentialsError:
    return AwsCredentialsError(
        f"AWS's file {shown_path(error.kwargs.get('path'))} can't be read: it isn't NAME = VALUE in [sections]",
        hint="look for a line that is neither, and save the file as UTF-8 without a byte order mark",
    )


def _half(error: Any) -> AwsCredentialsError:
    return AwsCredentialsError(
        f"AWS's credentials are incomplete: {shown(str(error.kwargs.get('cred_var')))} is missing",
        hint="give the access key's id and its secret, in variables or in AWS's files",
    )


def _no_profile(error: Any) -> AwsCredentialsError:
    round_it = what_is_round(str(error.kwargs.get("profile")))
    failed = "AWS's configuration has no such profile" + (f": it has {round_it} around it" if round_it else "")
    return _named_files(failed) or AwsCredentialsError(
        failed, hint="check AWS_PROFILE, and profile= in the URI: aws configure list-profiles"
    )


_TOLD: Final[tuple[tuple[type[Exception], Callable[[Any], AwsCredentialsError]], ...]] = (
    (boto.NoCredentialsError, lambda _: no_credentials_at_all()),
    (boto.ConfigParseError, _unreadable),
    (boto.PartialCredentialsError, _half),
    (boto.ProfileNotFound, _no_profile),
)


def _named_files(failed: str) -> AwsCredentialsError | None:
    """Return the error that a variable names a file that can't be read; None if none does."""
    for variable in _FILES:
        path = os.environ.get(variable)
        if path and not _is_readable(path):
            return AwsCredentialsError(
                f"{failed}; {variable} names {shown_path(path)}, which isn't a readable file",
                hint=f"correct {variable}, or leave it out",
            )
    return None


def _is_readable(path: str) -> bool:
    """Tell whether botocore finds a file there, which puts in ``~`` and variables."""
    place = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - pathlib refuses some texts
    return os.path.isfile(place) and os.access(place, os.R_OK)
