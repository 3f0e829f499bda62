"""``proxy install``: a script that sets the proxy up under systemd, for a person to read and to run."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import key_name, output_option
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.errors import UsageError
from hsm_keys.stores import backend_of

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings

__all__ = ["install"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_STORE = "pkcs11:token=LABEL?module-path=/path/module.so"
_QUOTES = frozenset("'\"\\ ")
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - by ProtectHome= and PrivateTmp=


@command(epilog="Example: hsm-keys proxy install prod --systemd --print > install.sh")
@key_name("The key that the proxy signs with.")
@click.option("--store", metavar="URI", help="The URI of the service's store, without a PIN.")
@click.option("--systemd", is_flag=True, required=True, help="For a machine with systemd.")
@click.option("--print", "prints", is_flag=True, required=True, help="Print the script, for you to read and to run.")
@output_option
@click.pass_obj
def install(settings: Settings, /, *, name: str, store: str | None, **_given: bool) -> None:
    """Print a script that sets the proxy up: user, PIN (typed without echo), policy, socket and service.

    Read the script, then run it as root: sudo sh install.sh. It doesn't change files that exist already.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "a systemd unit can't have this key's name",
            hint="use a key whose name has only letters, digits, dots and dashes",
        )
    uri = store or _STORE
    backend = backend_of(uri)
    backend.check_public(uri)
    if not uri.isprintable() or not uri.isascii() or _QUOTES & set(uri):
        raise UsageError(
            "the store's URI has characters that systemd's file can't hold",
            hint="percent-encode quotes, blanks and non-ASCII",
        )
    program = _program()
    if program.startswith(_HIDDEN):
        print_line(
            f"WARNING: the service can't see {program}: install hsm-keys in /opt/hsm-keys, and print this by that one",
            err=True,
        )
    secret = "pin.sh" if backend.wants_secret(uri) else "no-pin.sh"
    parts = {
        "NAME": name,
        "SECRET": _text(secret),
        "ENV": f"HSM_KEYS_STORE={uri}",
        "POLICY": _text("policy.toml"),
        "SOCKET": _text("hsm-keys-proxy@.socket"),
        "SERVICE": _text("hsm-keys-proxy@.service").replace("/opt/hsm-keys/bin/hsm-keys", program),
    }
    script = re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], _text("install.sh"))
    if settings.as_json:
        print_json({"script": script})
    else:
        click.echo(script)


def _text(name: str) -> str:
    return files("hsm_keys.proxy").joinpath("systemd", name).read_text(encoding="utf-8").strip()


def _program() -> str:
    return shutil.which("hsm-keys") or f"{sys.executable} -m hsm_keys"
