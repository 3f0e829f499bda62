"""What AWS KMS offers to the command line."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import UsageError
from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys, ReplicatesKeys
from hsm_keys.stores.access import Access
from hsm_keys.stores.backend import Option, refuse_two
from hsm_keys.stores.candidates import Candidate
from hsm_keys.stores.policies import PolicyText, PrintsPolicies
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.stores.base import KeyStore
    from hsm_keys.values import Secret

__all__ = ["BACKEND"]

_AWS_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

_AWS_FILE: Final = ".aws/credentials"


class _AwsKms(PrintsPolicies):
    scheme = "awskms"
    title = "AWS KMS"
    example = "--kms"
    bills_signatures = True
    access = Access(
        variables=("AWS_",),
        path_variables=(
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ),
        in_home=(".aws",),
    )
    abilities = (RenamesKeys, ImportsKeys, ReplicatesKeys)
    options = (
        Option("--kms", "The keys are in AWS KMS.", bool, names_store=True),
        Option(
            "--region",
            "KMS's Region; several with commas, preferred first.",
            metavar="REGION",
            setting="region",
            variables=("AWS_REGION", "AWS_DEFAULT_REGION"),
            default="the store's, else AWS's files",
        ),
    )
    creation_options = (
        Option("--multi-region", "On KMS: a key that can be replicated to other Regions.", bool),
        Option("--key-policy", "On KMS: a file with the key policy; `kms policy` prints one.", metavar="FILE"),
    )

    command = "kms"
    policy_options = (
        Option("--role", "The role that signs or enrolls; can be repeated.", metavar="ARN", multiple=True),
        Option("--account", "The account that owns the key; the role's by default.", metavar="ID"),
    )
    policy_help = """Print, in one object, the IAM policy and the key policy that allow exactly a workflow's calls.

    Nothing is sent to AWS. Give the key policy to `hsm-keys --kms enroll --key-policy FILE`.
    """
    policy_example = (
        "hsm-keys kms policy --for sign --name prod --role arn:aws:iam::111122223333:role/trader --region us-east-1"
    )

    def with_options(self, uri: str, options: Mapping[str, Any]) -> str:
        """Return the URI with --region worked in."""
        from hsm_keys.stores.awskms.uri import AwsKmsUri

        parsed = AwsKmsUri.parse(uri)
        region = options.get("region")
        if region is not None:
            regions = tuple(region.split(","))
            refuse_two("--region", regions, parsed.regions)
            parsed = replace(parsed, regions=regions)
        return str(AwsKmsUri.parse(str(parsed)))  # once more: the options are checked as the URI was

    def check_region(self, region: str) -> None:
        """Refuse what hasn't the shape of a Region."""
        from hsm_keys.stores.awskms.uri import check_region

        check_region(region)

    def candidates(
        self, options: Mapping[str, Any], env: Mapping[str, str], report: Callable[[str], None]
    ) -> list[Candidate]:
        """Return the account whose credentials and Region the environment names, where boto3 is installed."""
        del options, report
        region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
        has_credentials = any(env.get(name) for name in _AWS_CREDENTIALS) or os.path.exists(Path.home() / _AWS_FILE)
        if not region or not has_credentials or find_spec("boto3") is None:
            return []
        return [Candidate(f"{self.scheme}:///?region={region}", f"{self.title} in {region}")]

    def open(
        self,
        uri: str | Secret,
        options: Mapping[str, Any],
        ask: Callable[[str], str] | None,
        creation: Mapping[str, Any],
    ) -> KeyStore:
        """Open the account's keys."""
        from hsm_keys.stores.awskms import open_kms
        from hsm_keys.stores.awskms.tags import KeyCreation

        del options, ask  # the URI says all, and KMS has no PIN
        wanted = KeyCreation(
            multi_region=bool(creation.get("multi_region")), policy=_policy_in(creation.get("key_policy"))
        )
        return open_kms(uri, creation=wanted)

    def policy(
        self, purpose: str, name: str | None, uri: str | None, options: Mapping[str, Any], env: Mapping[str, str]
    ) -> PolicyText:
        """Return the IAM policy and the key policy."""
        from hsm_keys.stores.awskms.policy import Scope, iam_policy, key_policy
        from hsm_keys.stores.awskms.uri import AwsKmsUri

        regions = AwsKmsUri.parse(uri).regions if uri else ()
        named = options.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
        scope = Scope(
            regions=regions or tuple(named.split(",") if named else ()),
            account=options.get("account") or "",
            name=name,
            roles=options.get("role") or (),
        )
        return PolicyText({"iam_policy": iam_policy(purpose, scope), "key_policy": key_policy(scope)})


def _policy_in(file: str | None) -> str | None:
    try:
        return None if file is None else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the key policy {shown_path(file)} can't be read: {type(error).__name__}",
            hint="give a file that you can read, in UTF-8",
        ) from None


BACKEND: Final = _AwsKms()
