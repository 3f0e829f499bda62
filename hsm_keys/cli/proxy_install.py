"""``proxy install``: a script that sets the proxy up under systemd, for a person to read and to run."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.resources import files

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import key_name
from hsm_keys.errors import UsageError

__all__ = ["install"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_STORE = "pkcs11:token=LABEL?module-path=/path/module.so"


@command(epilog="Example: hsm-keys proxy install prod --systemd --print > install.sh")
@key_name("The key that the proxy signs with.")
@click.option("--store", metavar="URI", help="The store that the service opens; without a PIN.")
@click.option("--systemd", is_flag=True, required=True, help="For a machine with systemd.")
@click.option(
    "--print", "prints", is_flag=True, required=True, help="Print the script; it is yours to read and to run."
)
def install(*, name: str, store: str | None, systemd: bool, prints: bool) -> None:  # noqa: ARG001 - both have to be given
    """Print a script that sets the proxy up: user, PIN (typed without echo), policy, socket and service.

    Read it, then run it as root: sudo sh install.sh. Files that are there stay as they are.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "the name can't be that of a systemd unit", hint="use a key whose name has letters, digits, dots and dashes"
        )
    uri = store or _STORE
    if "pin-value" in uri or not uri.isprintable() or not uri.isascii():
        raise UsageError("the store's URI can't stand in a file that others read", hint="leave the PIN out of it")
    parts = {
        "NAME": name,
        "ENV": f"HSM_KEYS_STORE={uri}",
        "POLICY": _text("policy.toml"),
        "SOCKET": _text("hsm-keys-proxy@.socket"),
        "SERVICE": _text("hsm-keys-proxy@.service").replace("/opt/hsm-keys/bin/hsm-keys", _program()),
    }
    click.echo(re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], _text("install.sh")))


def _text(name: str) -> str:
    return files("hsm_keys.proxy").joinpath("systemd", name).read_text(encoding="utf-8").strip()


def _program() -> str:
    return shutil.which("hsm-keys") or f"{sys.executable} -m hsm_keys"
