"""Generating into a file, killed before and after each change of a file and each request: run again, it ends right."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from hsm_keys.signing.pem import load_private_key
from tests.support.killing import Effects, Killer, Moment

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]


def ids(sandbox: SandboxServer, name: str) -> list[str]:
    return [key.api_key_id for key in sandbox.state.keys.values() if key.name == name]


def test_to_a_file(sandbox: SandboxServer, tmp_path: Path) -> None:
    options = ["--key-type", "ed25519", "--to-file"]
    with Killer(Effects.KALSHI, Effects.FILES) as killer:
        whole = killer.run(["generate", "whole", *options, str(tmp_path / "whole.pem")])
        assert whole.status == 0, whole.error
        assert len(whole.places) > 15
        names = {"whole"}
        for place in range(1, len(whole.places) + 1):
            names.add(name := f"k{place}")
            path = tmp_path / f"{name}.pem"
            command = ["generate", name, *options, str(path)]
            assert killer.run(command, Moment(place)).killed
            finished = path.exists() and not list(tmp_path.glob(f"{path.name}.generating-*"))
            done = killer.run(command)
            assert done.status == (2 if finished else 0), f"killed at {place}: {done}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.pem" for name in names)
    for name in names:
        path = tmp_path / f"{name}.pem"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (api_key_id,) = ids(sandbox, name)
        assert load_private_key(path.read_bytes()).public_key() == sandbox.state.keys[api_key_id].public_key
