"""What a profile adds to the shared options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.cli.options import given_options
from hsm_keys.profiles.fields import OF_BACKENDS
from hsm_keys.profiles.file import chosen_profile
from hsm_keys.profiles.order import Origin, settings_in_order

if TYPE_CHECKING:
    from hsm_keys.cli.options import Settings

__all__ = ["add_profile"]


def add_profile(settings: Settings) -> None:
    """Put into the settings what the chosen profile says, where neither an option nor a variable says anything.

    Raises:
        UsageError: If the profile, or the file that it stands in, can't be used.
    """
    profile = chosen_profile(settings.profile)
    if profile is None:
        return
    for setting in settings_in_order(given_options(settings), profile):
        if setting.origin is Origin.PROFILE and setting.by == "store":
            settings.stores = (setting.value,)
        elif setting.origin is Origin.PROFILE and setting.by in OF_BACKENDS:
            _, option = OF_BACKENDS[setting.by]
            settings.store_options[option.name] = setting.value
        elif setting.origin is Origin.PROFILE:
            setattr(settings, setting.by.replace("-", "_"), setting.value)
