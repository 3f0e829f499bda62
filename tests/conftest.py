"""Fixtures that more than one package uses."""

from __future__ import annotations

import gc
import os
import signal
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import create_loader  # type: ignore[import-untyped]  # botocore has no annotations
from hypothesis import settings

from hsm_keys import open_store
from hsm_keys.sandbox.keys import generate_pair
from hsm_keys.sandbox.server import SandboxServer
from tests.support import kills, sdks
from tests.support import shim as shim_support
from tests.support import softhsm as softhsm_support
from tests.support.fork_server import SETTLE_S
from tests.support.ports import free_port
from tests.support.shim import Shim
from tests.support.softhsm import SoftHsm, TestToken

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path
    from ssl import SSLContext

    from hsm_keys import KeyStore

_MEMORY = "/dev/shm"  # noqa: S108 - pytest makes a folder of its own there, which nobody else can enter
_ROOM = 512 << 20


def _is_roomy(folder: str) -> bool:
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize > _ROOM and not room.f_flag & os.ST_NOEXEC


if _is_roomy(_MEMORY):  # on a disk SoftHSM waits a quarter of a second for each key that it makes
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

# A shared machine is no place to time a single example. Each run takes other examples: few in each, and many in time.
settings.register_profile("default", deadline=None, max_examples=100 if kills.THOROUGH else 30)
settings.load_profile("default")

_IN_CI = bool(os.environ.get("CI"))
_MAY_LACK = os.environ.get("HSM_KEYS_TEST_STORE", "softhsm") != "softhsm"  # docs/modules.md tells what a module lacks
_LEFT_OUT = pytest.StashKey[str]()


def _runs_everything(config: pytest.Config) -> bool:
    options = config.option
    return config.args_source != pytest.Config.ArgsSource.ARGS and not (options.markexpr or options.keyword)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start no workers, where the project's own options ask for them, for a few tests: those would wait for them."""
    return 0 if config.option.numprocesses == "logical" and not _runs_everything(config) else None


def _hear_signals() -> None:
    """Undo for programs under test what `nohup`, and a shell's `&`, do to all that they start: ignoring signals.

    A program inherits that a signal is ignored, and not that it has a handler.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_configure(config: pytest.Config) -> None:
    """Leave out what takes long, for somebody who runs everything without knowing it."""
    _hear_signals()
    if _runs_everything(config):
        if not _IN_CI:
            config.option.markexpr = "not crash and not program"  # an option reaches xdist's workers
            config.stash[_LEFT_OUT] = (
                "commands that are killed at every step, and programs from their start to their end; "
                "`./softhsm-setup.sh pytest -m 'crash or program'` runs them"
            )
        elif not kills.AT_RANDOM:
            config.stash[_LEFT_OUT] = (
                f"five sixths of the kills; `{kills.VARIABLE}=100 ./softhsm-setup.sh pytest -m crash` runs all"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, fail what is skipped: it would look like a test that has passed.

    The newest Python runs everything; older ones leave out what the clients of others don't support there.
    """
    report = yield
    if (
        _IN_CI
        and sys.version_info >= (3, 13)
        and report.skipped
        and not (_MAY_LACK and item.get_closest_marker("module"))
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of Kalshi's SDKs on a Python that none of them supports."""
    if sdks.none_runs_here():
        left_out = [item for item in items if item.get_closest_marker("sdks")]
        items[:] = [item for item in items if not item.get_closest_marker("sdks")]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Keep garbage collection from looking through thousands of collected tests: a tenth of their time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, also where xdist's workers did it."""
    if _LEFT_OUT in config.stash:
        terminalreporter.write_line(f"left out: {config.stash[_LEFT_OUT]}")
    if sdks.none_runs_here():
        terminalreporter.write_line("deselected: tests of Kalshi's SDKs, none of which runs on this Python")


def _once_for_each_bundle(create: Callable[..., SSLContext]) -> Callable[..., SSLContext]:
    """Read a bundle of certificates once, and not for each client of a test: it takes longer than most tests."""
    once = cache(lambda _bundles, arguments, keywords: create(*arguments, **dict(keywords)))
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")

    def created(*arguments: Any, **keywords: Any) -> SSLContext:
        bundles = tuple(os.environ.get(name) for name in names)
        try:
            return once(bundles, arguments, tuple(keywords.items()))
        except TypeError:  # given with something that can't be compared
            return create(*arguments, **keywords)

    return created


@pytest.fixture(autouse=True, scope="session")
def _made_once() -> Iterator[None]:
    """Make once a process what takes longer than most tests: the sandboxes' bootstrap keys, and AWS's models read.

    And wait less for Kalshi than a workflow does.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsm_keys.sandbox.server.generate_pair", cache(generate_pair))
        patch.setattr("botocore.session.create_loader", cache(create_loader))
        for name in ("httpx._transports.default", "httpx2._transports.default"):
            transports = import_module(name)
            patch.setattr(transports, "create_ssl_context", _once_for_each_bundle(transports.create_ssl_context))
        for seconds in ("SETTLE_S", "LATE_S"):
            patch.setattr(f"hsm_keys.lifecycle.ending.{seconds}", SETTLE_S)
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the keys, tokens and accounts of whoever runs it; a module that is named keeps what it reads."""
    prefixes = ["HSM_KEYS_", "KALSHI_", "AWS_"]
    if not os.environ.get("HSM_KEYS_TEST_STORE", "").startswith("pkcs11:"):
        prefixes.append("SOFTHSM2_")
    for name in list(os.environ):
        if name.startswith(tuple(prefixes)) and not name.startswith("HSM_KEYS_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for another one's workflow, stores of two tests may have the same name; nor reads your profiles."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A SoftHSM without tokens."""
    lacking = softhsm_support.missing()
    if lacking is not None:
        pytest.skip(f"SoftHSM is needed: {lacking}")
    folder = tmp_path / "softhsm"
    folder.mkdir()
    hsm = SoftHsm(folder)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.conf))
    monkeypatch.setenv("HSM_KEYS_MODULE", hsm.module)
    return hsm


@pytest.fixture
def token(softhsm: SoftHsm) -> TestToken:
    """The one token of a SoftHSM."""
    return softhsm.init_token()


@pytest.fixture(scope="session")
def _shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shim_support.compiler() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("a C compiler is needed")
    return shim_support.compiled(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim(_shim_library: Path, softhsm: SoftHsm, tmp_path: Path) -> Shim:
    """A module in front of SoftHSM that answers as a test says."""
    return Shim(_shim_library, tmp_path / "shim.so", softhsm.module)


@pytest.fixture
def store(token: TestToken) -> Iterator[KeyStore]:
    """That token, open."""
    with open_store(token.uri) as opened:
        yield opened


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A strict stand-in for Kalshi, with the environment of someone who has its bootstrap key."""
    with SandboxServer(tier="premier", key_type="ed25519", port=free_port(), ws_port=free_port()) as server:
        monkeypatch.setenv("KALSHI_API_BASE_URL", server.base_url)
        monkeypatch.setenv("KALSHI_WS_URL", server.ws_url)
        monkeypatch.setenv("KALSHI_KEY_ID", server.bootstrap_key_id)
        monkeypatch.setenv("KALSHI_PRIVATE_KEY", server.bootstrap_pem)
        yield server
