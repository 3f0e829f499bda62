"""The tokens of this machine, for ``init`` to propose."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreError, StoreNotFoundError
from hsm_keys.stores.candidates import Candidate
from hsm_keys.stores.pkcs11.library import find_module
from hsm_keys.stores.pkcs11.tokens import usable_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["modules_here", "tokens_here"]

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

_TPM: Final = "/dev/tpmrm0"
"""Without a TPM its module makes a database in the home folder, and writes pages to stderr."""


def modules_here(named: str | None) -> list[str]:
    """Return the paths of the PKCS#11 modules of this machine: the one that is named, else all in usual places.

    Args:
        named: The module that an option or ``HSM_KEYS_MODULE`` names.

    Raises:
        StoreNotFoundError: If there is no file at the path that is named.
    """
    if named:
        return [find_module(named)]
    vendors = [pattern for pattern in _VENDORS if "tpm2" not in pattern or os.path.exists(_TPM)]
    modules = [str(path) for pattern in vendors for path in sorted(Path("/").glob(pattern))]
    with suppress(StoreNotFoundError):
        modules.append(find_module(None))
    return list({str(Path(path).resolve()): path for path in modules}.values())


def tokens_here(modules: Sequence[str], label: str | None, report: Callable[[str], None]) -> list[Candidate]:
    """Return the tokens of modules; a module that can't be used hides no other.

    Args:
        modules: Their paths.
        label: The label of the one that is meant; None for all.
        report: Called with a line for people for each module.
    """
    candidates = []
    for module in modules:
        report(f"looking for tokens in {module}")
        try:
            tokens = usable_tokens(module)
        except StoreError as error:
            report(f"it can't be used: {error.message}")
            continue
        candidates += [
            Candidate(str(uri), f"{description} of {module}")
            for uri, description in tokens
            if label is None or uri.token == label
        ]
    return candidates
