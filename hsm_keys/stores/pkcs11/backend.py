"""What PKCS#11 tokens offer to the command line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import StoreNotFoundError, UsageError
from hsm_keys.stores.abilities import ImportsKeys, RawSigning, RenamesKeys
from hsm_keys.stores.access import Access
from hsm_keys.stores.backend import Option, refuse_two
from hsm_keys.stores.checks import Check, checked
from hsm_keys.stores.new_store import MakesStores
from hsm_keys.values import Secret, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.person import Person
    from hsm_keys.stores.base import KeyStore
    from hsm_keys.stores.candidates import Candidate
    from hsm_keys.stores.new_store import NewStore
    from hsm_keys.stores.pins import Pin, PinWanted
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["BACKEND"]

_NEW_LABEL: Final = "kalshi"


class _Tokens(MakesStores):
    scheme = "pkcs11"
    title = "PKCS#11 tokens"
    example = "--token LABEL"
    has_pin = True
    abilities = (RenamesKeys, ImportsKeys, RawSigning)
    access = Access(
        variables=("SOFTHSM2_", "PKCS11_", "P11_KIT_", "OPENSC_", "TPM2_PKCS11_", "YKCS11_"),
        path_variables=("SOFTHSM2_CONF", "TPM2_PKCS11_STORE"),
        in_home=(".config/softhsm2", ".tpm2_pkcs11"),
        in_system=("/var/lib/softhsm", "/var/lib/opencryptoki"),
    )
    options_of_new = frozenset({"token", "module", "pin_file", "force_pin"})
    remedy = "plug a token in, or install SoftHSM: apt install softhsm2, dnf install softhsm, brew install softhsm"
    options = (
        Option("--slot", "The token in slot N, or the Nth token (from 0).", int, "N", names_store=True),
        Option("--token", "The token with this label.", metavar="LABEL", names_store=True),
        Option(
            "--module",
            "The PKCS#11 module.",
            metavar="PATH",
            setting="module",
            variables=("HSM_KEYS_MODULE",),
            default="the store's, else SoftHSM",
            uri_attribute="module-path",
        ),
        Option(
            "--pin-file",
            "A file or pipe that holds the user PIN.",
            metavar="PATH",
            setting="pin",
            variables=("HSM_KEYS_PIN_FILE", "HSM_KEYS_PIN"),
            default="asked for on a terminal",
            uri_attribute="pin-source",
            is_secret_file=True,
        ),
        Option("--force-pin", "Log in though one more wrong PIN locks the token.", bool),
    )

    def uri_of(self, options: Mapping[str, Any], report: Callable[[str], None]) -> str:
        """Return the URI of the token in a slot, of that label, or of the module's only one."""
        from hsm_keys.stores.pkcs11.library import find_module
        from hsm_keys.stores.pkcs11.tokens import choose_slot
        from hsm_keys.stores.uri import Pkcs11Uri

        module_path = find_module(_module(options, os.environ))
        slot, token = options.get("slot"), options.get("token")
        if slot is None:
            if token and not token.isprintable():  # also bytes that aren't text in this locale
                raise UsageError(
                    "--token isn't printable text in this locale", hint="set LC_ALL=C.UTF-8, or give --slot or --store"
                )
            return str(Pkcs11Uri(token=token, module_path=module_path))
        choice = choose_slot(slot, module_path)
        report(f"slot {slot} is {choice.description}")
        if choice.others:
            others = ", ".join(choice.others)
            report(f"warning: slot numbers may change when tokens are added or removed; this module also has {others}")
        return str(choice.uri)

    def with_options(self, uri: str, options: Mapping[str, Any]) -> str:
        """Return the URI with --module worked in."""
        module = options.get("module")
        if module is None:
            return uri
        from hsm_keys.stores.pkcs11.library import find_module

        parsed = _parsed(uri)
        refuse_two("--module", module, parsed.module_path)
        if parsed.pin_value is not None:
            raise UsageError(
                "--module can't be added to a URI that holds a PIN", hint="write module-path into HSM_KEYS_STORE"
            )
        return str(replace(parsed, module_path=find_module(module)))

    def check_public(self, uri: str) -> None:
        """Refuse a URI with a PIN in it."""
        if _parsed(uri).pin_value is not None:
            raise UsageError(
                "a pin-value on the command line shows in every process list; nothing was opened",
                hint="use --pin-file, pin-source=file:/path in the URI, HSM_KEYS_PIN_FILE, or the prompt",
            )

    def wants_secret(self, uri: str) -> bool:
        """Tell whether the URI names no pin-source."""
        return _parsed(uri).pin_source is None

    def uri_to_keep(self, opened: str, named: str) -> str:
        """Return the URI of the one token, with the source of its PIN."""
        return str(replace(_parsed(opened), pin_source=_parsed(named).pin_source)) if self.has(named) else opened

    def public_names(self, uri: str) -> list[str]:
        """Return the labels of public objects that are ours; no PIN is asked for, and none is spent."""
        from hsm_keys.stores.pkcs11.public_names import names_without_login

        return names_without_login(_parsed(uri))

    def access_paths(self, env: Mapping[str, str], home: Path) -> list[Path]:
        """Return the files and folders, with the one where SoftHSM keeps its tokens."""
        from hsm_keys.stores.pkcs11.softhsm_conf import folder_in

        conf = env.get("SOFTHSM2_CONF")
        folder = folder_in(Path(conf)) if conf else None
        return super().access_paths(env, home) + ([folder] if folder else [])

    def pin_apart(
        self, uri: Secret, pin_file: Path | None, ask: Callable[[str], str] | None
    ) -> tuple[Secret, Callable[[PinWanted], Pin | None]]:
        """Return the URI without pin-source and pin-value, and what reads or asks for the PIN."""
        from hsm_keys.stores.pins import resolve_pin
        from hsm_keys.stores.uri import Pkcs11Uri

        parsed = Pkcs11Uri.parse(uri)

        def get_pin(wanted: PinWanted) -> Pin | None:
            return resolve_pin(wanted, pin_file=pin_file, uri=parsed, ask=ask)

        return Secret(str(replace(parsed, pin_source=None, pin_value=None))), get_pin

    def open_with(self, uri: str, get_pin: Callable[[PinWanted], Pin | None], *, force_pin: bool) -> KeyStore:
        """Open the token with a PIN from anywhere."""
        from hsm_keys.stores.pkcs11 import open_with

        return open_with(_parsed(uri), get_pin, force_pin=force_pin)

    def candidates(
        self, options: Mapping[str, Any], env: Mapping[str, str], report: Callable[[str], None]
    ) -> list[Candidate]:
        """Return the initialised tokens of the module that is named, else of those in usual places."""
        from hsm_keys.stores.pkcs11.candidates import modules_here, tokens_here

        return tokens_here(modules_here(_module(options, env)), options.get("token"), report)

    def is_making(self, folder: Path) -> bool:
        """Tell whether an earlier run was making a token in SoftHSM."""
        from hsm_keys.stores.pkcs11.softhsm_token import unfinished_label

        return unfinished_label(folder) is not None

    def make_store(
        self, options: Mapping[str, Any], env: Mapping[str, str], folder: Path, person: Person
    ) -> NewStore | None:
        """Make a token in SoftHSM."""
        from hsm_keys.stores.pkcs11.candidates import modules_here
        from hsm_keys.stores.pkcs11.softhsm_token import make_softhsm_token, unfinished_label

        module = _module(options, env)
        softhsm = next((path for path in modules_here(module) if "softhsm" in Path(path).resolve().name.lower()), None)
        if softhsm is None and module:
            raise StoreNotFoundError(
                f"{shown_path(module)} has no token that can be used",
                hint="plug its token in, or initialise one with its vendor's program; or leave --module and "
                "HSM_KEYS_MODULE out, to look for other modules in the usual places",
            )
        if softhsm is None:
            return None
        label = options.get("token") or unfinished_label(folder) or _NEW_LABEL
        pin_file = options.get("pin_file") or env.get("HSM_KEYS_PIN_FILE")
        return make_softhsm_token(softhsm, label, folder, Path(pin_file) if pin_file else None, person)

    def open(
        self,
        uri: str | Secret,
        options: Mapping[str, Any],
        ask: Callable[[str], str] | None,
        creation: Mapping[str, Any],
    ) -> KeyStore:
        """Open the token, and log in."""
        from hsm_keys.stores.pkcs11 import open_uri

        del creation  # a token makes keys in one way
        pin_file = options.get("pin_file")
        return open_uri(
            uri,
            pin_file=Path(pin_file) if pin_file else None,
            ask_pin=ask,
            force_pin=bool(options.get("force_pin")),
        )

    def look(
        self, uri: str, options: Mapping[str, Any], env: Mapping[str, str], opened: Callable[[], list[Check]]
    ) -> list[Check]:
        """Look at module, token and PIN without a login, and log in only where no try can be lost."""
        from hsm_keys.stores.pkcs11.checks import check_token

        checks = checked("token", lambda: check_token(uri, pin_file=options.get("pin_file"), env=env))
        if not any(check.name == "pin" for check in checks):
            return [*checks, Check("login", "skipped", "there is no token to log in to")]
        if any(check.name == "login" for check in checks):
            return checks
        return checks + checked("login", opened)


def _module(options: Mapping[str, Any], env: Mapping[str, str]) -> str | None:
    """Return the module that an option or a variable names."""
    return options.get("module") or env.get("HSM_KEYS_MODULE") or None


def _parsed(uri: str) -> Pkcs11Uri:
    from hsm_keys.stores.uri import Pkcs11Uri

    return Pkcs11Uri.parse(uri)


BACKEND: Final = _Tokens()
