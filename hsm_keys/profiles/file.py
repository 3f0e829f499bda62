"""The file with the profiles: ``hsm-keys/config.toml`` in ``XDG_CONFIG_HOME``, else in ``~/.config``.

::

    default = "prod"            # which profile counts where none is named

    [profiles.prod]
    store = "pkcs11:token=kalshi?module-path=/usr/lib/softhsm/libsofthsm2.so"
    pin-file = "~/.config/hsm-keys/pin"
    env = "prod"
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import UsageError
from hsm_keys.files import check_nobody_else_writes
from hsm_keys.profiles.fields import check_fields
from hsm_keys.settings_errors import not_toml
from hsm_keys.values import NAME, describe, hides_its_arguments, shown_path, shown_word

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Profile", "Profiles", "chosen_profile", "config_path", "is_profile_name", "parse_profiles", "read_profiles"]

_MAX_LENGTH: Final = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings under a name.

    Args:
        name: The name.
        path: The file that it stands in.
        fields: The settings, by the names that they have in the file; paths begin with ``/``.
    """

    name: str
    path: Path
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Profiles:
    """What the file holds.

    Args:
        path: Where it is.
        default: The profile that counts where none is named; None if there is no such one.
        profiles: The profiles by name.
    """

    path: Path
    default: str | None
    profiles: Mapping[str, Profile]


def is_profile_name(name: str) -> bool:
    """Tell whether a profile may be called so."""
    return NAME.fullmatch(name) is not None


def config_path(env: Mapping[str, str] = os.environ) -> Path:
    """Return where the file is to be, by the XDG Base Directory Specification: a relative folder is left aside.

    Raises:
        UsageError: If this user has no home.
    """
    folder = env.get("XDG_CONFIG_HOME", "")
    if not folder.startswith("/"):
        folder = f"{_home()}/.config"
    return Path(folder, "hsm-keys", "config.toml")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder to look for profiles in", hint="set XDG_CONFIG_HOME") from None


@hides_its_arguments
def chosen_profile(name: str | None, env: Mapping[str, str] = os.environ) -> Profile | None:
    """Return the profile that counts: the one named, else that of ``HSM_KEYS_PROFILE``, else the file's default.

    Args:
        name: What ``--profile`` said.
        env: The environment's variables.

    Returns:
        The profile; None if none is named and the file has no default, or there is no file.

    Raises:
        UsageError: If there is no such profile, or the file can't be used.
    """
    by = "--profile" if name else "HSM_KEYS_PROFILE"
    name = name or env.get("HSM_KEYS_PROFILE") or None
    path = config_path(env)
    profiles = read_profiles(path)
    if profiles is None:
        if name is None:
            return None
        raise UsageError(f"{by} names a profile, and there is no file {path}", hint=_HINT)
    name = name or profiles.default
    if name is None:
        return None
    if name not in profiles.profiles:
        names = ", ".join(profiles.profiles) or "none"
        raise UsageError(
            f"{path} has no profile {shown_word(name, profiles.profiles)}; it has {names}",
            hint=f"correct {by}; `hsm-keys config` without it shows the settings",
        )
    return profiles.profiles[name]


_HINT: Final = "`hsm-keys init` writes one; for a profile of AWS's own files set AWS_PROFILE"


def read_profiles(path: Path) -> Profiles | None:
    """Read the file; None if there is none, or another user keeps it to themselves.

    After ``su``, or from cron, HOME may still be somebody else's: their settings aren't this user's.

    Raises:
        UsageError: If it can't be read though it is this user's, others can write it, or it holds what no profile
            holds, such as a secret.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(
                    f"{shown_path(path)} isn't a regular file", hint="replace it by a file, or move it away"
                )
            check_nobody_else_writes(path, file.fileno())
            content = file.read(_MAX_LENGTH + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if isinstance(error, PermissionError) and not _is_of_this_user(path):
            return None
        raise UsageError(
            f"{shown_path(path)} can't be read: {error.strerror}", hint="make it readable, or move it away"
        ) from None
    return parse_profiles(path, content)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for somebody who writes


def _is_of_this_user(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:  # it lies in a folder that this user can't enter
        return False


@hides_its_arguments
def parse_profiles(path: Path, content: bytes) -> Profiles:
    """Return what a text holds, which is to stand in that file; it may hold a secret that doesn't belong there.

    Raises:
        UsageError: If that can't be profiles; nothing of the text is repeated.
    """
    hint = f"mend {path}; docs/profiles.md has an example"
    if len(content) > _MAX_LENGTH:
        raise UsageError(f"{path} is too long to hold profiles", hint=hint)
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise UsageError(f"{path} isn't UTF-8", hint=hint) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {not_toml(error)}", hint=hint) from None
    problem, profiles = _profiles(path, table)
    default = table.get("default")
    if not problem and default is not None and default not in profiles:
        problem = "default has to name a profile of this file"
    if problem:
        raise UsageError(f"{path}: {problem}", hint=hint)
    return Profiles(path, default, profiles)


def _profiles(path: Path, table: Mapping[str, Any]) -> tuple[str, dict[str, Profile]]:
    """Return what is wrong with the file, and its profiles."""
    stray = next((name for name in table if name not in {"default", "profiles"}), None)
    if stray is not None:
        return f"there is no setting {shown_word(stray, ('default', 'profiles'))} outside [profiles.NAME]", {}
    within = table.get("profiles", {})
    if not isinstance(within, dict):
        return "profiles have the form [profiles.NAME]", {}
    profiles = {}
    for name, fields in within.items():
        if not is_profile_name(name) or not isinstance(fields, dict):
            return f"{describe(name)} can't be a profile: they have the form [profiles.NAME]", {}
        problem = check_fields(fields)
        if problem:
            return f"profile {name}: {problem}", {}
        profiles[name] = Profile(name, path, {field: _absolute(value) for field, value in fields.items()})
    return "", profiles


def _absolute(value: str) -> str:
    return str(_home() / value[2:]) if value.startswith("~/") else value
