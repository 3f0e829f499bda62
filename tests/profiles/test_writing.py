"""Adding a profile to the file."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.profiles.file import read_profiles
from hsm_keys.profiles.writing import add_profile_to_file

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {"store": 'pkcs11:token=a%22b?module-path=/usr/lib/ü/"quoted"\\x.so', "env": "demo"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "hsm-keys" / "config.toml"


def test_what_is_written_is_read_and_nobody_else_reads_it(path: Path) -> None:
    assert add_profile_to_file(path, "demo", FIELDS)
    known = read_profiles(path)
    assert known is not None
    assert (known.default, dict(known.profiles["demo"].fields)) == ("demo", FIELDS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not add_profile_to_file(path, "demo", FIELDS), "it is there"


def test_what_stands_there_stays_as_it_is(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    mine = '# mine\n[profiles.a]  # first\nenv = "demo"'
    path.write_text(mine)
    path.chmod(0o600)
    add_profile_to_file(path, "b.c", FIELDS)
    known = read_profiles(path)
    assert path.read_text().startswith(mine)
    assert known is not None
    assert (known.default, set(known.profiles)) == (None, {"a", "b.c"})


def test_a_file_without_profiles_gets_a_default_before_its_tables(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text("# nothing yet\n[profiles]\n")
    path.chmod(0o600)
    add_profile_to_file(path, "prod", {"env": "prod"})
    known = read_profiles(path)
    assert known is not None
    assert known.default == "prod"


def test_a_profile_is_never_changed(path: Path) -> None:
    add_profile_to_file(path, "prod", {"env": "prod", "api-key-id": "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"})
    text = path.read_text()
    assert not add_profile_to_file(path, "prod", {"env": "prod"}), "an id that isn't known yet is left open"
    with pytest.raises(UsageError, match="other settings"):
        add_profile_to_file(path, "prod", {"env": "demo"})
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("name", "fields"),
    [("a b", {"env": "prod"}), ("", {}), ("prod", {"env": "other"}), ("prod", {"store": "pkcs11:?pin-value=4711"})],
)
def test_what_could_not_be_read_again_is_not_written(path: Path, name: str, fields: dict[str, str]) -> None:
    with pytest.raises(UsageError) as error:
        add_profile_to_file(path, name, fields)
    assert not path.exists()
    assert "4711" not in str(error.value)


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    real.chmod(0o600)
    path.symlink_to(real)
    add_profile_to_file(path, "prod", {"env": "prod"})
    assert path.is_symlink()
    assert "profiles.prod" in real.read_text()
