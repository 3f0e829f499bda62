"""``audit``: trails of the proxy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import group
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.errors import UsageError
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings

__all__ = ["audit"]

_path = click.Path(path_type=Path)


@group(epilog="Example: hsm-keys audit verify ~/.local/state/hsm-keys/prod/audit")
def audit() -> None:
    """Audit trails of the proxy."""


@audit.command(epilog="Example: hsm-keys audit verify FOLDER --public-key prod.pem")
@click.argument("folder", type=_path)
@click.option(
    "--public-key", type=_path, multiple=True, help="A key that signed the trail (PEM); repeat it for each rotation."
)
@click.option("--head", metavar="HASH", help="The hash of a line that has to be there, from an earlier `proxy status`.")
@click.option(
    "--allow-unsigned-tail", is_flag=True, help="A proxy still writes the trail: its last lines aren't signed yet."
)
@settings_options
@click.pass_obj
def verify(
    settings: Settings, *, folder: Path, public_key: tuple[Path, ...], head: str | None, allow_unsigned_tail: bool
) -> int:
    """Find lines that were changed, left out, put in or cut, or that no signature covers. Exit code 0: none; 1: some.

    Without --public-key, signatures are checked with the keys that the trail itself names.
    """
    verifying = import_extra("proxy", "hsm_keys.proxy.verifying")
    keys = []
    for path in public_key:
        try:
            keys.append(verifying.read_public_key(path.read_text(encoding="ascii")))
        except (OSError, UnicodeDecodeError):
            raise UsageError(
                f"{shown_path(path)} can't be read", hint="`hsm-keys public-key NAME` prints one"
            ) from None
    report = verifying.verify(folder, keys, head=head, allow_unsigned_tail=allow_unsigned_tail)
    if settings.as_json:
        from dataclasses import asdict

        print_json(asdict(report))
    else:
        for finding in report.findings:
            click.echo(f"{finding.file}:{finding.line}: {finding.what}")
        click.echo(f"{report.lines} lines, {report.checkpoints} checkpoints verified; head {report.head}")
        if not report.closed:
            click.echo("not closed: a proxy still writes it, or was killed, or the end was cut off, which --head shows")
        if report.unsigned > 1:
            click.echo(f"the last {report.unsigned} lines aren't signed yet")
        if not keys:
            click.echo("checked with the keys that the trail itself names; --public-key checks these keys too")
    return 1 if report.findings else 0
