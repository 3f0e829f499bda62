"""``config``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import given_options, settings_options
from hsm_keys.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings
    from hsm_keys.profiles.file import Profile
    from hsm_keys.profiles.order import Setting

__all__ = ["config"]


@command(uses_profile=False, epilog="Example: hsm-keys config --profile prod")
@settings_options
@click.pass_obj
def config(settings: Settings) -> None:
    """Print every setting and its source: an option, a variable, the profile or a default, in this order.

    Profiles are kept in hsm-keys/config.toml, in XDG_CONFIG_HOME or ~/.config. No store is opened, and Kalshi isn't
    asked.
    """
    from hsm_keys.profiles.file import chosen_profile, config_path
    from hsm_keys.profiles.order import settings_in_order

    path, profile = config_path(), chosen_profile(settings.profile)
    settled = settings_in_order(given_options(settings), profile)
    if settings.as_json:
        settings_objects = [
            {"name": each.name, "value": each.value, "origin": each.origin.value, "by": each.by or None}
            for each in settled
        ]
        print_json({"file": str(path), "profile": profile.name if profile else None, "settings": settings_objects})
        return
    print_line(f"profile {profile.name} of {path}" if profile else f"no profile ({path})")
    print_table(("SETTING", "VALUE", "FROM"), [(each.name, each.value, _said(each, profile)) for each in settled])


def _said(setting: Setting, profile: Profile | None) -> str:
    if setting.by and setting.origin == "profile" and profile is not None:
        return f"profile {profile.name}: {setting.by}"
    return setting.by or setting.origin
