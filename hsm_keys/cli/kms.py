"""``kms policy`` and ``replicate``: what only AWS KMS needs."""

from __future__ import annotations

import os

import click

from hsm_keys.cli.commands import command, group
from hsm_keys.cli.options import Settings, check_printable_name, key_name, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.session import opened_store, speaking
from hsm_keys.errors import UsageError

__all__ = ["kms", "replicate"]

# The names of hsm_keys.stores.awskms.policy.PURPOSES; importing it here would load cryptography for --help.
_PURPOSES = ("sign", "enroll", "generate", "rotate", "revoke")


@group(epilog="Example: hsm-keys kms policy --for sign --name prod --role arn:aws:iam::111122223333:role/trader")
def kms() -> None:
    """Policies for AWS KMS."""


@kms.command(epilog="Example: hsm-keys kms policy --for sign --name prod --account 111122223333 --region us-east-1")
@click.option("--for", "purpose", type=click.Choice(_PURPOSES), required=True, help="What is to be allowed.")
@key_name("The key; every key of hsm-keys by default.", required=False)
@click.option(
    "--role", "roles", multiple=True, metavar="ARN", help="Who signs; again for more, the one that enrolls included."
)
@click.option("--account", default="", metavar="ID", help="The account that owns the key; the role's by default.")
@settings_options
@click.pass_obj
def policy(settings: Settings, *, purpose: str, name: str | None, roles: tuple[str, ...], account: str) -> None:
    """Print the IAM policy with what the workflow calls and no more, and the key policy, as one JSON object.

    Nothing is sent to AWS. The key policy goes to `hsm-keys --kms enroll --key-policy FILE`.
    """
    from hsm_keys.stores.awskms.policy import Scope, iam_policy, key_policy

    check_printable_name(name)
    scope = Scope(regions=_regions(settings), account=account, name=name, roles=roles)
    print_json({"iam_policy": iam_policy(purpose, scope), "key_policy": key_policy(scope)})


def _regions(settings: Settings) -> tuple[str, ...]:
    named = settings.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return tuple(named.split(",")) if named else ()


@command(epilog="Example: hsm-keys replicate prod --to us-west-2 --kms --region us-east-1")
@key_name("The key in KMS.")
@click.option("--to", "target", required=True, metavar="REGION", help="Where the key is to be usable too.")
@settings_options
@click.pass_obj
def replicate(settings: Settings, *, name: str, target: str) -> None:
    """Make the multi-Region key NAME usable in another Region: replica, tags and alias. Safe to repeat.

    Afterwards name both Regions, the preferred one first: --region us-east-1,us-west-2.
    """
    with speaking(settings) as say, opened_store(settings, say) as store:
        from hsm_keys.stores.awskms.store import AwsKmsStore

        if not isinstance(store, AwsKmsStore):
            raise UsageError("replicate is for keys in AWS KMS", hint="give --kms")
        key = store.replicate(name, target)
        attributes = key.attributes()
        say(f"the key {name!r} is usable in {target} too")
        if settings.as_json:
            shown = {field: attributes[field] for field in ("primary_region", "replica_regions")}
            print_json({"name": key.name, "uri": key.uri, **shown})
        else:
            print_line(f"{key.name}  {attributes['primary_region']}  {attributes['replica_regions']}")
