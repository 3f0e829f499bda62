"""The kill switch is found from wherever somebody reaches for it, and asks nobody else."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import files
from hsm_keys.errors import StoreAmbiguousError, StoreNotFoundError, UsageError
from hsm_keys.proxy import controlling, locations
from hsm_keys.proxy.controlling import ProxyChoice, ask_all, ask_one
from hsm_keys.proxy.locations import Search
from tests.support.canaries import run
from tests.support.cli import run_cli, run_json
from tests.support.orders import ORDERS, order_body
from tests.support.running_proxy import with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

BALANCE = "/trade-api/v2/portfolio/balance"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine of its own, as far as the search goes: /run and /tmp, and an environment that names no folder."""
    folder = tempfile.TemporaryDirectory(dir="/tmp")
    tmp_path = Path(folder.name)
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(locations, "_RUN", tmp_path / "run")
    monkeypatch.setattr(locations, "_TMP", tmp_path / "tmp")
    monkeypatch.setattr(files, "_TMP", str(tmp_path / "tmp"))
    with folder:
        yield tmp_path


@pytest.fixture
def listen() -> Iterator[Callable[..., Path]]:
    """Starts what answers on a control socket as a proxy does."""
    listeners = []

    def listen(path: Path, **said: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)
        name = path.name.removesuffix(".control.sock")
        text = json.dumps({"name": name, "pid": 1, "serves_at": "", "frozen": True, **said}).encode()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield listen
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


PLACES = {
    "login": f"run/user/{os.geteuid()}/hsm-keys",
    "systemd": "run/hsm-keys-proxy-prod/hsm-keys",
    "no XDG_RUNTIME_DIR": f"tmp/hsm-keys-{os.geteuid()}",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_it_is_found_where_the_environment_names_nothing(
    machine: Path, listen: Callable[..., Path], place: str
) -> None:
    path = listen(machine / place / "prod.control.sock")
    for wanted in (
        ProxyChoice("prod"),
        ProxyChoice(everyone=True),
        ProxyChoice(socket=path),
        ProxyChoice(socket=path.parent / "prod.sock"),
    ):
        assert [answer.socket for answer in ask_all(wanted, "POST", "/freeze")] == [path]
    with pytest.raises(StoreNotFoundError) as caught:
        ask_all(ProxyChoice("other"), "POST", "/freeze")
    for folder in PLACES.values():
        if "proxy-prod" not in folder or "proxy-prod" in place:
            assert str(machine / folder) in (caught.value.hint or "")


def test_it_is_found_where_nothing_can_be_written(machine: Path, listen: Callable[..., Path]) -> None:
    """A full disk is no reason to go on signing."""
    path = listen(machine / PLACES["login"] / "prod.control.sock")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert [answer.socket for answer in ask_all(ProxyChoice("prod"), "POST", "/freeze")] == [path]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_is_found_by_the_link_in_the_state_folder(machine: Path, listen: Callable[..., Path]) -> None:
    """A proxy with an XDG_RUNTIME_DIR of its own is found from a shell with none."""
    path = listen(machine / "elsewhere" / "prod.control.sock")
    link = locations.control_link("prod")
    link.parent.mkdir(parents=True)
    link.symlink_to(path)
    for wanted in (ProxyChoice("prod"), ProxyChoice(everyone=True)):
        assert [answer.socket for answer in ask_all(wanted, "POST", "/freeze")] == [path]


def test_every_proxy_of_the_name_is_frozen_and_one_alone_is_thawed(machine: Path, listen: Callable[..., Path]) -> None:
    paths = [listen(machine / place / "prod.control.sock") for place in PLACES.values()]
    assert {answer.socket for answer in ask_all(ProxyChoice("prod"), "POST", "/freeze")} == set(paths)
    with pytest.raises(StoreAmbiguousError, match="3 proxies are meant"):
        ask_one(ProxyChoice("prod"), "POST", "/thaw")
    assert ask_one(ProxyChoice(socket=paths[0]), "POST", "/thaw")["name"] == "prod"


def test_a_socket_of_clients_that_was_chosen_freely_names_its_proxy(machine: Path, listen: Callable[..., Path]) -> None:
    listen(machine / PLACES["login"] / "other.control.sock", serves_at="the socket /x/y.sock")
    path = listen(machine / PLACES["login"] / "prod.control.sock", serves_at=f"the socket {machine}/proxy")
    assert [one.socket for one in ask_all(ProxyChoice(socket=machine / "proxy"), "POST", "/freeze")] == [path]
    with pytest.raises(StoreNotFoundError):
        ask_all(ProxyChoice(socket=machine / "window"), "POST", "/freeze")


@pytest.mark.parametrize("command", ["freeze", "cancel-all", "thaw", "status"])
def test_it_works_where_settings_that_it_does_not_need_are_wrong(
    machine: Path, listen: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    path = listen(machine / "run" / "prod.control.sock", cancelled={"status": 204, "problem": "", "resting": 0})
    config = machine / "hsm-keys" / "config.toml"
    config.parent.mkdir()
    config.write_text("no TOML")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine))
    for name in ("HSM_KEYS_PROFILE", "HSM_KEYS_STORE", "KALSHI_API_BASE_URL", "KALSHI_WS_URL", "KALSHI_DEMO"):
        monkeypatch.setenv(name, "nonsense")
    done = run("proxy", command, "--socket", str(path))
    assert done.code == 0, done.text


def test_nothing_is_asked_of_another_user(
    machine: Path, listen: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = listen(machine / PLACES["login"] / "prod.control.sock")
    monkeypatch.setattr(controlling, "peer_of", lambda _: (4711, 1))
    with pytest.raises(UsageError, match="the user 4711 listens") as caught:
        ask_one(ProxyChoice("prod"), "POST", "/thaw")
    assert str(path) in caught.value.message
    assert not ask_all(ProxyChoice("prod"), "POST", "/freeze")[0].said


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter; pytest closes its own ones to them, whenever a run begins."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.usefixtures("sandbox")
def test_root_reaches_a_proxy_of_another_user_and_nobody_else_does(open_folder: Path) -> None:
    with with_key_in_memory(open_folder) as proxy:
        _check_who_reaches(proxy, open_folder / "hsm-keys" / "prod.control.sock")


def _check_who_reaches(proxy: RunningProxy, control: Path) -> None:
    as_other = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
    imports = "import http.client, sys, hsm_keys.cli.answers, hsm_keys.cli.proxy; from hsm_keys.cli import main; "
    code = "main(['proxy', 'freeze', '--socket', sys.argv[1]])"
    control.parent.chmod(0o711)
    control.chmod(0o666)  # the file's mode isn't what keeps others out
    done = subprocess.run(
        [sys.executable, "-c", imports + as_other + code, str(control)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "HOME": "/nonexistent"},
    )
    assert (done.returncode, "the user 0 listens" in done.stderr) == (2, True), done.stderr
    assert proxy.request("GET", BALANCE)[0] == 200
    ask = "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    send = "s.sendall(b'POST /freeze HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(12))"
    done = subprocess.run(
        [sys.executable, "-c", "import socket, sys; " + as_other + ask + send, str(control)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "b'HTTP/1.1 403'\n"
    assert proxy.request("GET", BALANCE)[0] == 200


def test_a_proxy_that_hangs_delays_no_other_and_is_named(
    machine: Path, listen: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlling, "_ANSWER_S", 0.3)
    good = listen(machine / PLACES["login"] / "prod.control.sock")
    hung = machine / PLACES["systemd"] / "prod.control.sock"
    hung.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hung))
        listener.listen()
        answers = {answer.socket: answer for answer in ask_all(ProxyChoice("prod"), "POST", "/freeze")}
    assert answers[good].error is None
    error = answers[hung].error
    assert error is not None
    assert (error.exit_code, f"kill -9 {os.getpid()} ends it" in (error.hint or "")) == (7, True)
    assert ask_all(ProxyChoice("prod"), "POST", "/freeze")[0].socket == good  # what nobody listens at is no proxy
    assert len(ask_all(ProxyChoice("prod"), "POST", "/freeze")) == 1


def test_the_status_of_all_says_which_proxy_gives_no_answer(
    listen: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer that reads the exit code, or the JSON, isn't told that all is well."""
    monkeypatch.setattr(controlling, "_ANSWER_S", 0.3)
    good, hung = listen(tmp_path / "good.control.sock"), tmp_path / "hung.control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hung))
        listener.listen()
        monkeypatch.setattr(controlling, "search", lambda _: Search([good, hung]))
        for words in ((), ("--output", "json")):
            done = run("proxy", "status", "--all", *words)
            assert done.code == 7
            assert str(good) in done.text
            assert str(hung) in done.text


def test_from_a_shell_without_the_proxys_environment(start: Callable[..., RunningProxy], tmp_path: Path) -> None:
    proxy = start()
    elsewhere = {"XDG_RUNTIME_DIR": str(tmp_path / "nowhere"), "XDG_STATE_HOME": str(tmp_path / "none")}
    found = {"XDG_STATE_HOME": proxy.environment["XDG_STATE_HOME"], "XDG_RUNTIME_DIR": ""}
    for options, environment in (
        (["--name", "prod"], found),
        (["--all"], found),
        (["--socket", str(proxy.socket)], elsewhere),
        (["--socket", str(proxy.socket.with_name("prod.control.sock"))], elsewhere),
    ):
        done = run_cli("proxy", "freeze", *options, **environment)
        assert (done.returncode, "frozen: nothing is signed" in done.stdout) == (0, True), done.stderr
        assert proxy.request("GET", BALANCE)[1]["error"]["code"] == "frozen"
        assert run_cli("proxy", "thaw", *options, **environment).returncode == 0
        assert proxy.request("GET", BALANCE)[0] == 200
    told = run_json("proxy", "freeze", "--all", **found)
    assert (told["frozen"], [one["name"] for one in told["proxies"]]) == (True, ["prod"])
    assert [one["frozen"] for one in run_json("proxy", "status", "--all", **found)["proxies"]] == [True]


def test_one_freeze_holds_over_two_proxies_and_each_has_caps_of_its_own(
    start: Callable[..., RunningProxy], sandbox: SandboxServer
) -> None:
    policy = '[clients.default]\nmax_dollars_a_day = "1"\n'
    proxies = start(policy), start(policy, name="other")

    def placed(name: str) -> list[int]:
        bodies = [json.dumps(order_body(count="1", price="0.6000", client_order_id=f"{name}-{one}")) for one in (0, 1)]
        json_type = {"Content-Type": "application/json"}
        return [one.request("POST", ORDERS, body, json_type)[0] for one, body in zip(proxies, bodies, strict=True)]

    assert placed("a") == [201, 201]  # 1.20 dollars together
    assert placed("b") == [429, 429]
    environment = proxies[0].environment
    told = run_json("proxy", "freeze", "--all", **environment)
    assert [(one["name"], one["frozen"]) for one in told["proxies"]] == [("other", True), ("prod", True)]
    before = len(sandbox.requests)
    assert [proxy.request("GET", BALANCE)[1]["error"]["code"] for proxy in proxies] == ["frozen", "frozen"]
    assert len(sandbox.requests) == before
    assert run_cli("proxy", "thaw", "--all", **environment).returncode == 0
    assert [proxy.request("GET", BALANCE)[0] for proxy in proxies] == [200, 200]


def test_a_socket_that_was_chosen_is_one_to_freeze_by(start: Callable[..., RunningProxy], tmp_path: Path) -> None:
    proxy = start(socket=tmp_path / "chosen")
    assert run_cli("proxy", "freeze", "--socket", str(tmp_path / "chosen"), **proxy.environment).returncode == 0
    told = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert (told["frozen"], told["serves_at"]) == (True, f"the socket {tmp_path}/chosen")


def test_which_one_has_to_be_said(tmp_path: Path) -> None:
    for options in ([], ["--name", "prod", "--all"], ["--name", "prod", "--socket", str(tmp_path)]):
        for command in ("freeze", "thaw", "status"):
            assert run_cli("proxy", command, *options).returncode == 2


def test_status_waits_until_the_proxy_serves(
    machine: Path, listen: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hsm_keys.cli import proxy_control

    looks = []

    def sleep(_: float) -> None:
        looks.append(1)
        if len(looks) == 1:  # it begins to listen, and then to serve
            listen(machine / PLACES["login"] / "prod.control.sock")
        if len(looks) == 2:
            listen(machine / PLACES["systemd"] / "other.control.sock", serves_at="the socket x")

    monkeypatch.setattr(time, "sleep", sleep)
    proxy_control._wait(ProxyChoice("other"))
    assert len(looks) == 2
    monkeypatch.setattr(proxy_control, "_WAIT_S", 0.0)
    with pytest.raises(StoreNotFoundError, match="doesn't serve its clients yet"):
        proxy_control._wait(ProxyChoice("prod"))
    with pytest.raises(StoreNotFoundError, match="no proxy for 'none'"):
        proxy_control._wait(ProxyChoice("none"))


def test_status_wait_prints_once(start: Callable[..., RunningProxy]) -> None:
    proxy = start()
    done = run_cli("proxy", "status", "--name", "prod", "--wait", **proxy.environment)
    assert (done.returncode, "serves at" in done.stdout) == (0, True)
