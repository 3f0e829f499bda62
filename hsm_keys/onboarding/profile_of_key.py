"""The profile by which a key is found again, planned before anything is made and written when the key is proved."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_keys.profiles.file import config_path, read_profiles
from hsm_keys.profiles.writing import add_profile_to_file, check_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.lifecycle.enroll import Enrollment

__all__ = ["PlannedProfile", "pin_file_to_keep", "plan_profile"]


@dataclass(frozen=True, slots=True)
class PlannedProfile:
    """A profile to write.

    Args:
        name: Its name.
        path: The file.
        fields: Its settings.
        is_there: Whether it stands there already.
    """

    name: str
    path: Path
    fields: Mapping[str, str]
    is_there: bool

    def write(self, enrollment: Enrollment, report: Callable[[str], None]) -> PlannedProfile:
        """Write it, with the API key id where the store can't hold that; return it as written.

        Raises:
            UsageError: If it can't be written.
        """
        fields = dict(self.fields)
        if enrollment.key.api_key_id is None and enrollment.api_key_id is not None:
            fields["api-key-id"] = enrollment.api_key_id
        if add_profile_to_file(self.path, self.name, fields):
            report(f"wrote the profile {self.name} to {self.path}")
        return replace(self, fields=fields, is_there=True)


def plan_profile(name: str, fields: Mapping[str, str]) -> PlannedProfile:
    """Return the profile to write.

    Raises:
        UsageError: If one of that name says something else, or the file can't be used.
    """
    path = config_path()
    profiles = read_profiles(path)
    is_there = profiles is not None and name in profiles.profiles
    check_profile(profiles, name, fields)
    return PlannedProfile(name, path, fields, is_there)


def pin_file_to_keep(named: str | None, env: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of the PIN file for a profile; None if there is none, or it is a pipe, which is gone next time.

    Args:
        named: What ``--pin-file`` said.
        env: The environment's variables.
    """
    path = Path(named or env.get("HSM_KEYS_PIN_FILE", "")).expanduser()
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return None
    return str(path.absolute()) if is_file else None
