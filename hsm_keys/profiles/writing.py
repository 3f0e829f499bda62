"""Adds a profile to the file. The rest of the file isn't changed, comments included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hsm_keys.errors import UsageError
from hsm_keys.files import private_folder, write_whole
from hsm_keys.profiles.file import is_profile_name, parse_profiles, read_profiles
from hsm_keys.values import describe, shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hsm_keys.profiles.file import Profiles

__all__ = ["add_profile_to_file", "check_profile"]


def add_profile_to_file(path: Path, name: str, fields: Mapping[str, str]) -> bool:
    """Write a profile, in one step: the file is whole, or as it was. The first profile of a file is its default.

    Args:
        path: The file; it and its folder are made where they aren't there.
        name: The profile's name.
        fields: Its settings.

    Returns:
        Whether it was written; not if it stands there already.

    Raises:
        UsageError: If the name can't be one, a profile of that name says something else, a field can't be used, or the
            file can't be read or written.
    """
    if not is_profile_name(name):
        raise UsageError(f"a profile can't be called {describe(name)}", hint="use letters, digits, dot, - and _")
    profiles = read_profiles(path)
    check_profile(profiles, name, fields)
    if profiles is not None and name in profiles.profiles:
        return False
    text = "" if profiles is None else path.read_text(encoding="utf-8")
    if profiles is None or not (profiles.profiles or profiles.default):
        text = f'default = "{name}"\n{text}'
    # TOML reads a string in JSON's form as the same string.
    lines = [f'[profiles."{name}"]' if "." in name else f"[profiles.{name}]"]
    lines += [f"{field} = {json.dumps(value, ensure_ascii=False)}" for field, value in fields.items()]
    text = "\n".join([text.rstrip("\n"), "", *lines, ""])
    parse_profiles(path, text.encode())
    _write(path, text)
    return True


def check_profile(profiles: Profiles | None, name: str, fields: Mapping[str, str]) -> None:
    """Make sure that a profile of that name isn't there, or says the same but for an API key id.

    Args:
        profiles: What the file holds; None if there is none.
        name: The profile's name.
        fields: Its settings.

    Raises:
        UsageError: If it says something else.
    """
    there = profiles.profiles.get(name) if profiles is not None else None
    if profiles is None or there is None:
        return
    left_open = {} if "api-key-id" in fields else {"api-key-id": there.fields.get("api-key-id", "")}
    if dict(there.fields) | left_open != dict(fields) | left_open:
        raise UsageError(
            f"{profiles.path} has a profile {name} with other settings; it wasn't changed",
            hint="choose another name with --profile, or remove that profile from the file",
        )


def _write(path: Path, text: str) -> None:
    private_folder(path.parent)
    try:
        write_whole(path.resolve(), text)  # a link stays one
    except OSError as error:
        raise UsageError(
            f"{shown_path(path)} can't be written: {error.strerror}", hint="set XDG_CONFIG_HOME to a folder of yours"
        ) from None
