"""Where a key could live: tokens of this machine's PKCS#11 modules, and what the environment names."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreError, StoreNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Candidate", "find_candidates", "modules_here"]

_VENDORS: Final = (
    "usr/lib/*/pkcs11/yubihsm_pkcs11.so",
    "usr/local/lib/pkcs11/yubihsm_pkcs11.*",
    "usr/lib/*/libykcs11.so",
    "usr/local/lib/libykcs11.*",
    "opt/homebrew/lib/libykcs11.dylib",
    "usr/lib/*/pkcs11/libtpm2_pkcs11.so",
    "usr/lib64/pkcs11/libtpm2_pkcs11.so",
    "opt/cloudhsm/lib/libcloudhsm_pkcs11.so",
    "opt/nfast/toolkits/pkcs11/libcknfast.so",
    "usr/safenet/lunaclient/lib/libCryptoki2_64.so",
    "opt/utimaco/lib/libcs_pkcs11_R3.so",
)
"""Where vendors' packages put their modules."""

_AWS_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

_TPM: Final = "/dev/tpmrm0"
"""Without a TPM its module makes a database in the home folder, and writes pages to stderr."""

_AWS_FILE: Final = ".aws/credentials"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A store that is there.

    Args:
        uri: Its URI.
        description: What people call it.
        label: The label, of a token.
    """

    uri: str
    description: str
    label: str | None = None

    def __str__(self) -> str:
        return self.description


def modules_here(named: str | None) -> list[str]:
    """Return the paths of the PKCS#11 modules of this machine: the one that is named, else all in usual places.

    Args:
        named: The module that an option or ``HSM_KEYS_MODULE`` names.

    Raises:
        StoreNotFoundError: If there is no file at the path that is named.
    """
    from hsm_keys.stores.pkcs11.library import find_module

    if named:
        return [find_module(named)]
    vendors = [pattern for pattern in _VENDORS if "tpm2" not in pattern or Path(_TPM).exists()]
    modules = [str(path) for pattern in vendors for path in sorted(Path("/").glob(pattern))]
    with suppress(StoreNotFoundError):
        modules.append(find_module(None))
    return list({str(Path(path).resolve()): path for path in modules}.values())


def find_candidates(
    modules: list[str], report: Callable[[str], None], env: Mapping[str, str] = os.environ
) -> list[Candidate]:
    """Return the stores that are there; nothing is opened that needs a PIN, and nobody is asked over a network.

    Args:
        modules: Paths of PKCS#11 modules.
        report: Called with a line for people for each module.
        env: The environment's variables.
    """
    return [*_tokens(modules, report), *_kms(env), *_vault(env)]


def _tokens(modules: list[str], report: Callable[[str], None]) -> list[Candidate]:
    from hsm_keys.stores.pkcs11.tokens import usable_tokens

    candidates = []
    for module in modules:
        report(f"looking for tokens in {module}")
        try:
            tokens = usable_tokens(module)
        except StoreError as error:
            report(f"it can't be used: {error.message}")
            continue
        candidates += [Candidate(str(uri), f"{described} of {module}", uri.token) for uri, described in tokens]
    return candidates


def _kms(env: Mapping[str, str]) -> list[Candidate]:
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    has_credentials = any(env.get(name) for name in _AWS_CREDENTIALS) or (Path.home() / _AWS_FILE).exists()
    if not region or not has_credentials or find_spec("boto3") is None:
        return []
    return [Candidate(f"awskms:///?region={region}", f"AWS KMS in {region}")]


def _vault(env: Mapping[str, str]) -> list[Candidate]:
    variable = next((name for name in ("BAO_ADDR", "VAULT_ADDR") if env.get(name)), None)
    return [Candidate("vault:///transit", f"the Vault that {variable} names")] if variable else []
