"""Where the first key will live: the store that is there, one of several, or a new token in SoftHSM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreNotFoundError, UsageError
from hsm_keys.onboarding.candidates import find_candidates, modules_here
from hsm_keys.onboarding.softhsm_token import offer_token, unfinished_label
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from hsm_keys.onboarding.softhsm_token import NewToken
    from hsm_keys.person import Person

__all__ = ["choose_store"]

_LABEL: Final = "kalshi"


def choose_store(
    module: str | None, label: str | None, folder: Path, pin_file: Path | None, person: Person
) -> tuple[str, NewToken | None]:
    """Return the URI of the store, and the token if it was made for this.

    Args:
        module: The PKCS#11 module that an option or a variable names.
        label: The label of the token that an option names.
        folder: Where notes and PIN files go.
        pin_file: The file with the PIN of a token to be.
        person: Who is asked.

    Raises:
        StoreNotFoundError: If there is no store, and no SoftHSM to make a token in.
        UsageError: If there are several and nobody to ask, or the answer is no.
        StoreError: If SoftHSM refuses.
    """
    modules = modules_here(module)
    unfinished = unfinished_label(folder)
    if unfinished is None:
        tokens = find_candidates(modules, person.report)
        if label is not None:
            tokens = [each for each in tokens if each.label == label]
        if tokens:
            place = (
                0 if len(tokens) == 1 else person.choose("Where is the key to live?", [str(each) for each in tokens])
            )
            return tokens[place].uri, None
    softhsm = next((path for path in modules if "softhsm" in Path(path).resolve().name.lower()), None)
    if softhsm is None and module:
        raise StoreNotFoundError(
            f"there is no token that can be used in {shown_path(module)}",
            hint="plug its token in, or initialise one with its vendor's program; without --module and "
            "HSM_KEYS_MODULE, the usual places are looked at",
        )
    if softhsm is None:
        raise StoreNotFoundError(
            "there is no token, no AWS KMS and no Vault that this machine or its environment names, and no SoftHSM",
            hint="plug a token in, or install SoftHSM: apt install softhsm2, dnf install softhsm, brew install softhsm",
        )
    _configure(person)
    new_token = offer_token(softhsm, label or unfinished or _LABEL, folder, pin_file, person)
    from hsm_keys.stores.uri import Pkcs11Uri

    return str(Pkcs11Uri(token=new_token.label, module_path=softhsm)), new_token


def _configure(person: Person) -> None:
    """Give this user a configuration of SoftHSM's, where the system's is for others."""
    from hsm_keys.stores.pkcs11.softhsm_conf import own_configuration, tokens_folder, write_own_configuration

    if tokens_folder() is not None:
        return
    person.agree(f"SoftHSM isn't configured for this user. Write {own_configuration()}?")
    try:
        path = write_own_configuration()
    except OSError as error:
        raise UsageError(f"{shown_path(error.filename)} can't be written: {error.strerror}") from None
    person.report(f"wrote {path}")
