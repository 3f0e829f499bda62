"""What is released is built alike everywhere, and the workflows that do it are pinned and clean."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys._version import __version__
from tests.docs.test_readme import blocks_of
from tests.support.cli import ROOT

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
_BUILT_FROM = tuple(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["sdist"][
        "include"
    ]
)


def _build(folder: Path, *, umask: int, time: int) -> dict[str, str]:
    """Build from a copy of the source whose files have a time and modes of their own; return the files' hashes."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("/pyproject.toml", "/.gitignore", *_BUILT_FROM):
        path, copy = ROOT / name[1:], source / name[1:]
        if path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(path, copy)
    for path in source.rglob("*"):
        path.chmod((0o777 if path.is_dir() or path.suffix == ".sh" else 0o666) & ~umask)
        os.utime(path, (time, time))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder / "dist"],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1790000000"},
        umask=umask,
        check=True,
        capture_output=True,
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "dist").iterdir()}


def test_the_changelog_has_the_version_that_is_next_or_out_below_what_is_not_released() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert re.fullmatch(re.escape(__version__) + r" - \d{4}-\d\d-\d\d", sections[1])


@pytest.mark.program
def test_two_builds_are_equal_byte_for_byte(tmp_path: Path) -> None:
    first = _build(tmp_path / "one", umask=0o022, time=1_700_000_000)
    assert sorted(name.rpartition(".")[2] for name in first) == ["gz", "whl"]
    assert _build(tmp_path / "two", umask=0o077, time=1_750_000_000) == first
    (sdist,) = (tmp_path / "one/dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"SECURITY.md", "CONTRIBUTING.md", ".github/workflows/release.yml", "tests/project/test_release.py"} <= names


def test_every_action_is_pinned_by_commit_with_its_version() -> None:
    assert [path.name for path in WORKFLOWS] == ["release.yml", "test.yml"]
    for path in WORKFLOWS:
        used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
        assert used
        for action in used:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_the_tools_of_the_release_are_those_of_the_page() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    page = (ROOT / "docs/release.md").read_text(encoding="utf-8")
    for tool in ("hatchling", "cyclonedx-bom"):
        assert set(re.findall(rf"{tool}==[\d.]+", workflow)) == set(re.findall(rf"{tool}==[\d.]+", page)) != set()


@pytest.mark.program
def test_zizmor_finds_nothing() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    done = subprocess.run(
        [zizmor, "--offline", "--no-progress", ROOT / ".github"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.program
@pytest.mark.softhsm
def test_checksums_are_signed_in_the_token_and_verified_by_openssl(token: TestToken, tmp_path: Path) -> None:
    page = (ROOT / "docs/release.md").read_text(encoding="utf-8")
    [recipe] = [block.code for block in blocks_of(page) if "hsm-keys enroll release" in block.code]
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{hashlib.sha256(b'').hexdigest()}  hsm_keys-0.1.0.tar.gz\n")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HSM_KEYS_STORE": token.uri_without_pin,
        "HSM_KEYS_PIN_FILE": str(token.pin_file),
    }

    def bash(code: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euo", "pipefail", "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = bash(recipe)
    assert (done.returncode, "Verified OK" in done.stdout) == (0, True), done.stdout + done.stderr
    sums.write_text(sums.read_text().replace("hsm_keys", "hsm-keys"))
    changed = bash(recipe[recipe.index("openssl dgst") :])
    assert changed.returncode != 0
    assert "Verification failure" in changed.stdout + changed.stderr
