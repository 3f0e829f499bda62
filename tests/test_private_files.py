"""Files and folders of this user alone, whatever others put in their place, and whenever."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.files import (
    check_folder_to_be,
    check_place_for,
    open_private,
    runtime_folder,
    temporary_folder,
    try_lock,
    write_whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "hsm-keys"


def test_it_is_made_and_found_again(place: Path) -> None:
    assert runtime_folder() == runtime_folder() == place
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_without_a_runtime_folder_it_is_in_the_temporary_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert runtime_folder() == tmp_path / f"hsm-keys-{os.geteuid()}"


@pytest.mark.parametrize("named", ["", "not/absolute", "/not/there"])
def test_a_temporary_folder_that_is_none_isnt_used(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("TMPDIR", named)
    assert temporary_folder() == Path("/tmp")  # noqa: S108 - by the standard of file systems


def test_a_link_a_file_and_an_open_folder_are_refused(place: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    place.symlink_to(ours)
    with pytest.raises(OSError, match="hsm-keys"):
        runtime_folder()
    place.unlink()
    place.touch()
    with pytest.raises(OSError, match="hsm-keys"):
        runtime_folder()
    place.unlink()
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(PermissionError):
        runtime_folder()


def test_a_link_that_comes_between_two_looks_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    calls: list[str] = []
    swapped: list[bool] = []

    def swapping(name: str) -> None:
        """Put a link to a folder of ours in the place of the folder before each call but the first of that name."""
        real = getattr(os, name)

        def call(path: object, *arguments: object, **keywords: object) -> object:
            if path == place and calls and not swapped:
                swapped.append(True)
                os.rename(place, tmp_path / f"away-{len(calls)}")  # noqa: PTH104
                os.symlink(ours, place)  # noqa: PTH211
            calls.append(name)
            return real(path, *arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    for name in ("mkdir", "open", "stat", "lstat"):
        swapping(name)
    with pytest.raises(OSError, match="hsm-keys"):
        runtime_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, 65534, 65534)
    with pytest.raises(PermissionError):
        runtime_folder()


def test_a_private_file_is_made_for_this_user_alone_and_through_no_link(tmp_path: Path) -> None:
    descriptor = open_private(tmp_path / "new")
    os.close(descriptor)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="link"):
        open_private(tmp_path / "link")


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    first, second = open_private(tmp_path / "lock"), open_private(tmp_path / "lock")
    assert (try_lock(first), try_lock(second)) == (True, False)
    os.close(first)
    assert try_lock(second)
    os.close(second)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page"
    write_whole(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half\ud800")
    assert path.read_text() == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("check", [check_place_for, check_folder_to_be])
def test_a_place_in_which_nothing_can_be_written_is_said(
    check: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path / "x", "--audit")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(UsageError, match="nothing can be written"):
        check(tmp_path / "x", "--audit")
