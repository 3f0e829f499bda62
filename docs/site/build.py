"""Builds the site: the pages of docs, and those that the program itself makes. It needs no network.

    python docs/site/build.py FOLDER

FOLDER/html is the site then. The environment has to hold hsm-keys and the dependency group ``docs``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import click

import hsm_keys
from hsm_keys.cli import program
from hsm_keys.cli.explanations import KALSHI, OURS, PROXY
from hsm_keys.cli.help_pages import SharedOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hsm_keys.cli.explanations.explanation import Explanation

_HERE = Path(__file__).parent
_DOCS = _HERE.parent
_ROOT = _DOCS.parent
_BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def gather(pages: Path) -> None:
    """Write all pages into a folder."""
    pages.mkdir(parents=True)
    for file in _DOCS.iterdir():
        if file.suffix in {".md", ".png", ".svg"}:
            shutil.copy(file, pages / file.name)
    shutil.copytree(_DOCS / "decisions", pages / "decisions")
    for name in _BESIDE:
        shutil.copy(_ROOT / name, pages / name)
    shutil.copy(_ROOT / "README.md", pages / "index.md")
    for page in pages.glob("*.md"):
        text = re.sub(r"\]\((?:docs/|\.\./)", "](", page.read_text(encoding="utf-8"))
        page.write_text(text.replace("](README.md", "](index.md"), encoding="utf-8")
    (pages / "commands.md").write_text("\n".join(_command_lines()), encoding="utf-8")
    (pages / "errors.md").write_text("\n".join(_error_lines()), encoding="utf-8")
    (pages / "api.md").write_text("\n".join(_api_lines()), encoding="utf-8")


def _command_lines() -> Iterator[str]:
    yield "# Commands\n"
    yield "`hsm-keys COMMAND --help` shows the same.\n"
    top = click.Context(program, info_name="hsm-keys")
    shared = [param for param in program.params if isinstance(param, SharedOption)]
    yield "## Options for the store and the environment\n"
    yield "Nearly every command takes them; they stand before or after it.\n"
    yield from _options(top, shared)
    for name in program.list_commands(top):
        command = program.get_command(top, name)
        if command is not None:
            yield from _command(click.Context(command, top, info_name=name))


def _command(ctx: click.Context) -> Iterator[str]:
    command = ctx.command
    yield f"## {ctx.command_path}\n"
    yield f"{_prose(command.help or '').replace(chr(8), '').strip()}\n"
    yield f"```text\n{' '.join([ctx.command_path, *command.collect_usage_pieces(ctx)])}\n```\n"
    own = [param for param in command.params if isinstance(param, click.Option) and not isinstance(param, SharedOption)]
    yield from _options(ctx, own)
    examples = (command.epilog or "").replace("\b", "").replace("Example:", "").strip().splitlines()
    yield "\n".join(["```sh", *(line.strip() for line in examples), "```\n"])
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None:
                yield from _command(click.Context(inner, ctx, info_name=name))


def _options(ctx: click.Context, options: Sequence[click.Option]) -> Iterator[str]:
    records = [record for option in options if (record := option.get_help_record(ctx))]
    if records:
        yield "| option | what |\n|---|---|"
        yield from (f"| <code>{_cell(escape(name))}</code> | {_cell(_prose(what))} |" for name, what in records)
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "&#124;")


def _prose(text: str) -> str:
    """Return a text whose brackets stay brackets in Markdown."""
    return re.sub(r"([][<>*])", r"\\\1", text)


def _error_lines() -> Iterator[str]:
    yield "# Errors\n"
    yield "The code stands in brackets behind an error. `hsm-keys explain CODE` shows the same.\n"
    for heading, codes in (("The command line and the library", OURS), ("The proxy", PROXY), ("Kalshi", KALSHI)):
        yield f"## {heading}\n"
        yield from _errors(codes)


def _errors(codes: Mapping[str, Explanation]) -> Iterator[str]:
    for code, known in codes.items():
        yield f"### `{code}`\n"
        exit_code = "" if known.exit_code is None else f" Exit code {known.exit_code}."
        yield f"{_prose(known.cause)}{exit_code}\n\n{_prose(known.remedy)}\n\n```text\n{known.example}\n```\n"


def _api_lines() -> Iterator[str]:
    yield "# Python API\n"
    yield "What `hsm_keys` exports. Everything has types; errors are one tree below `HsmKeysError`.\n"
    for name, home in hsm_keys._HOMES.items():  # noqa: SLF001 - where the names that are exported live
        yield f"::: {home}.{name}\n"


def build(folder: Path) -> int:
    """Gather the pages in a folder that isn't there yet, build the site beside them, and return the exit code."""
    gather(folder / "pages")
    shutil.copy(_HERE / "zensical.toml", folder / "zensical.toml")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    return subprocess.run(command, cwd=folder, check=False).returncode  # noqa: S603 - no shell, and our own words


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
