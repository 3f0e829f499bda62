"""Help pages: groups, shared options by name, and examples that can be copied at any width."""

from __future__ import annotations

import shlex

import click
import pytest

from hsm_keys.cli import _COMMANDS, _GROUPS
from hsm_keys.cli.help_pages import SharedOption
from tests.support.canaries import commands, run

COMMANDS = dict(commands())
WIDTHS = ("20", "40", "80", "300")


def examples_of(page: str) -> list[str]:
    return [line[2:] for line in page[page.rindex("\nExample") :].splitlines()[2:]]


def test_every_command_is_in_one_group() -> None:
    grouped = [name for names in _GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(_COMMANDS) <= set(grouped)
    page = run("--help").text
    assert all(f"\n  {name} " in page for name in _COMMANDS)
    assert [page.index(f"\n{heading}:\n") for heading in _GROUPS] == sorted(
        page.index(f"\n{heading}:\n") for heading in _GROUPS
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_example_is_a_command_on_one_line_at_any_width(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (COMMANDS[words].epilog or "").replace("\b", "").replace("Example:", "").strip().splitlines()
    assert given
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", width)
        examples = examples_of(run(*words, "--help").text)
        assert examples == [line.strip() for line in given]
        assert all("hsm-keys" in shlex.split(example) for example in examples)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_page_names_the_shared_options_and_explains_none(words: tuple[str, ...]) -> None:
    page = run(*words, "--help").text
    shared = [param for param in COMMANDS[words].params if isinstance(param, SharedOption)]
    explained = run(*words, "--help-store").text if shared else ""
    for option in shared:
        assert option.opts[-1] in page
        assert str(option.help).split()[-1] not in page.split("Store and environment")[1]
        assert f"\n  {option.opts[0]}" in explained
    own = [param for param in COMMANDS[words].params if isinstance(param, click.Option) and param not in shared]
    assert all(option.opts[-1] in page for option in own)


def test_no_short_help_is_cut() -> None:
    groups = [words for words, command in COMMANDS.items() if isinstance(command, click.Group)]
    assert groups
    for words in groups:
        assert "..." not in run(*words, "--help").text.split("Options:")[0].split("Commands:")[1]


@pytest.mark.parametrize("group", ["kms", "vault"])
def test_a_policy_is_printed_by_the_line_of_its_help_page(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "HSM_KEYS_STORE"):
        monkeypatch.delenv(name, raising=False)
    [example] = examples_of(run(group, "policy", "--help").text)
    program, *words = shlex.split(example.partition("|")[0])
    assert program == "hsm-keys"
    assert run(*words).code == 0
