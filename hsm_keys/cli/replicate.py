"""``replicate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import key_name, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.session import opened_store, reporting
from hsm_keys.cli.store_uri import chosen_backend

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings

__all__ = ["replicate"]


@command(epilog="Example: hsm-keys replicate prod --to us-west-2 --kms --region us-east-1")
@key_name("The key in the store.")
@click.option("--to", "target", required=True, metavar="REGION", help="The other Region.")
@settings_options
@click.pass_obj
def replicate(settings: Settings, *, name: str, target: str) -> None:
    """Make the multi-Region key NAME usable in another Region: replica, tags and alias. Safe to repeat.

    Afterwards name both Regions, the preferred one first: --region us-east-1,us-west-2.
    """
    from hsm_keys.stores.abilities import ReplicatesKeys

    backend = chosen_backend(settings)
    ReplicatesKeys.check(backend)
    backend.check_region(target)
    with reporting(settings) as report, opened_store(settings, report) as store:
        key = ReplicatesKeys.of(store).replicate(name, target)
        attributes = key.attributes()
        report(f"the key {name!r} is usable in {target} too")
        if settings.as_json:
            shown = {field: attributes[field] for field in ("primary_region", "replica_regions")}
            print_json({"name": key.name, "uri": key.uri, **shown})
        else:
            print_line(f"{key.name}  {attributes['primary_region']}  {attributes['replica_regions']}")
