"""What a profile adds to the shared options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hsm_keys.cli.options import given_options
from hsm_keys.profiles.fields import OF_BACKENDS
from hsm_keys.profiles.file import chosen_profile, config_path, read_profiles
from hsm_keys.profiles.order import Origin, settings_in_order

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings
    from hsm_keys.profiles.file import Profile
    from hsm_keys.stores.backend import Backend

__all__ = ["add_profile", "add_profile_of"]


def add_profile(settings: Settings, backend: Backend | None = None) -> None:
    """Put into the settings what the chosen profile says, where neither an option nor a variable says anything.

    Args:
        settings: The shared options.
        backend: The one back-end that the command is for: a profile for another store says nothing then.

    Raises:
        UsageError: If the profile, or the file that it stands in, can't be used.
    """
    profile = chosen_profile(settings.profile)
    if profile is not None and (backend is None or backend.has(profile.fields.get("store", ""))):
        _add(settings, profile)


def add_profile_of(settings: Settings, name: str | None) -> str | None:
    """Put into the settings what the profile says that a key is to have, or has since an earlier run.

    Args:
        settings: The shared options.
        name: The key's name; None if it wasn't given.

    Returns:
        The name of the profile: ``--profile``, ``HSM_KEYS_PROFILE``, the key's, else the file's default if nothing
        says otherwise than that; None if none of them is there.

    Raises:
        UsageError: If the file can't be used.
    """
    profiles = read_profiles(config_path())
    wanted = settings.profile or os.environ.get("HSM_KEYS_PROFILE") or name
    if profiles is None:
        return wanted
    if wanted is None and profiles.default and _agrees(settings, profiles.profiles[profiles.default]):
        wanted = profiles.default
    if wanted is not None and wanted in profiles.profiles:
        _add(settings, profiles.profiles[wanted])
    return wanted


def _agrees(settings: Settings, profile: Profile) -> bool:
    """Tell whether every setting of a profile is what counts, or what counts says the same."""
    counting = {setting.value for setting in settings_in_order(given_options(settings), profile)}
    return counting.issuperset(profile.fields.values())


def _add(settings: Settings, profile: Profile) -> None:
    for setting in settings_in_order(given_options(settings), profile):
        if setting.origin is Origin.PROFILE and setting.by == "store":
            settings.stores = (setting.value,)
        elif setting.origin is Origin.PROFILE and setting.by in OF_BACKENDS:
            _, option = OF_BACKENDS[setting.by]
            settings.store_options[option.name] = setting.value
        elif setting.origin is Origin.PROFILE:
            setattr(settings, setting.by.replace("-", "_"), setting.value)
