"""``kms policy``, ``vault policy``: policies for a store's administrator, which allow exactly a workflow's calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import Group, command
from hsm_keys.cli.options import check_printable_name, key_name, policy_options, settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.cli.profile import add_profile
from hsm_keys.cli.store_uri import check_options
from hsm_keys.stores.policies import PURPOSES
from hsm_keys.values import hides_its_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings
    from hsm_keys.stores.policies import PrintsPolicies

__all__ = ["policy_group"]


def policy_group(backend: PrintsPolicies) -> Group:
    """Return the group of commands of a back-end that prints policies."""
    return Group(
        backend.command,
        help=f"Policies for {backend.title}.",
        epilog=f"Example: {backend.policy_example}",
        commands=[_policy_command(backend)],
    )


def _policy_command(backend: PrintsPolicies) -> click.Command:
    def policy(settings: Settings, *, purpose: str, name: str | None) -> None:
        check_printable_name(name)
        add_profile(settings, backend)
        check_options(backend, settings)
        inherited = os.environ.get("HSM_KEYS_STORE", "")
        uri = next(iter(settings.stores), inherited if backend.has(inherited) else None)
        printed = hides_its_arguments(backend.policy)(purpose, name, uri, settings.store_options, os.environ)
        if settings.as_json or printed.text is None:
            print_json(dict(printed.as_dict))
        else:
            click.echo(printed.text, nl=False)

    added: list[Callable[..., Callable[..., None]]] = [
        click.pass_obj,
        settings_options,
        policy_options(backend),
        key_name("The key; every key of hsm-keys by default.", required=False),
        click.option("--for", "purpose", type=click.Choice(PURPOSES), required=True, help="The workflow to allow."),
    ]
    function: Callable[..., None] = policy
    for add in added:
        function = add(function)
    example = f"Example: {backend.policy_example}"
    return command("policy", uses_profile=False, help=backend.policy_help, epilog=example)(function)
