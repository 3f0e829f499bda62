"""A program behind a proxy of its own: what it gets, what it doesn't get, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys.running.keeping import HANDED_ON
from hsm_keys.running.variables import VARIABLES, kept_from_programs
from tests.support.cli import failed_json, run_json
from tests.support.runs import until
from tests.support.seen import latest

if TYPE_CHECKING:
    from tests.support.runs import Runs
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.program, pytest.mark.softhsm]

ASK = """
import json, os, sys, urllib.request
def ask(path="/portfolio/balance", token=os.environ["KALSHI_KEY_ID"]):
    request = urllib.request.Request(os.environ["KALSHI_API_BASE_URL"] + path, headers={"KALSHI-ACCESS-KEY": token})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
"""


def kinds(runs: Runs) -> list[str]:
    return [line["kind"] for line in runs.trail()]


def next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that the program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_program_signs_and_holds_no_key(runs: Runs, token: TestToken) -> None:
    code = ASK + "print(json.dumps([ask(), ask('/api_keys'), ask(token='0' * 64), dict(os.environ)])); sys.exit(7)"
    secrets = {"AWS_SECRET_ACCESS_KEY": "a", "VAULT_TOKEN": "b", "BAO_TOKEN": "c", "HSM_KEYS_PIN": token.pin}
    done = runs.python(code, environment=secrets, stdin=subprocess.DEVNULL)  # a new interpreter, see ``processes``
    assert done.returncode == 7, done.stderr
    balance, keys, stranger, environment = json.loads(done.stdout)
    assert (balance, keys, stranger) == (200, 403, 401)
    assert latest(runs.sandbox).verified
    given = set(VARIABLES)
    assert given <= set(environment)
    assert [name for name in environment if name.startswith(kept_from_programs()) and name not in given] == []
    shown = done.stdout + done.stderr
    assert not any(secret in shown for secret in (token.pin, str(token.pin_file), runs.sandbox.bootstrap_key_id))
    throwaway = Path(environment["KALSHI_PRIVATE_KEY_PATH"]).read_text()
    assert b64decode(environment["KALSHI_PRIVATE_KEY_BASE64"]).decode() == throwaway
    assert throwaway != runs.sandbox.bootstrap_pem
    assert done.stderr == ""
    assert runs.processes() == []


def test_the_trail_says_what_was_run_and_by_whom(runs: Runs) -> None:
    assert runs.run("sh", "-c", "exit 3", "an argument", options=("--client", "maker")).returncode == 3
    began, ended = (line for line in runs.trail() if line["kind"].startswith("program"))
    assert began["program"].endswith("/sh")
    assert (began["client"], began["arguments"], began["uid"]) == ("maker", 3, os.getuid())
    assert (ended["kind"], ended["exit_code"], ended["pid"]) == ("program_ended", 3, began["pid"])
    assert "an argument" not in json.dumps(runs.trail())
    pem = runs.folder / "prod.pem"
    pem.write_text(run_json("show", "prod")["public_key_pem"])
    report = run_json("audit", "verify", str(runs.folder / "state/hsm-keys/prod/audit"), "--public-key", str(pem))
    assert report["findings"] == []


def test_a_program_has_its_three_streams_and_no_other_descriptor(runs: Runs) -> None:
    code = "import os, sys; print(os.listdir('/proc/self/fd'), sys.stdin.read(), file=sys.stderr); print('out')"
    with (runs.folder / "left").open("w") as left:
        os.set_inheritable(left.fileno(), True)
        done = runs.python(code, input="in", pass_fds=(left.fileno(),))
    assert done.stdout == "out\n"
    assert done.stderr == "['0', '1', '2', '3'] in\n"  # 3 is the listing's own


def test_an_input_that_holds_the_pin_isnt_the_programs(runs: Runs, token: TestToken) -> None:
    code = ASK + "print(ask()); print(repr(sys.stdin.read()))"
    with Path(token.pin_file).open() as stdin:
        done = runs.python(code, options=("--pin-file", "/dev/stdin"), stdin=stdin)
    assert (done.returncode, done.stdout) == (0, "200\n''\n"), done.stderr


def test_a_policy_holds_for_the_client(runs: Runs) -> None:
    policy = runs.folder / "policy.toml"
    policy.write_text('version = 1\n[clients.maker]\nallow = ["GET /portfolio/balance"]\n')
    code = ASK + "print(ask(), ask('/portfolio/orders'))"
    done = runs.python(code, options=("--policy", str(policy), "--client", "maker"))
    assert done.stdout == "200 403\n", done.stderr
    assert runs.python(code, options=("--policy", str(policy))).stdout == "403 403\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_that_ends_it_is_128_and_its_number(runs: Runs, number: int) -> None:
    assert runs.run("sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


WITNESS = """
import signal, sys, time
got = []
for number in {numbers}:
    signal.signal(number, lambda number, frame: got.append(number))
print("ready", flush=True)
shown = 0
while shown < {count}:
    time.sleep(0.01)
    if len(got) > shown:
        shown += 1
        print("heard", flush=True)
time.sleep(0.3)
print(got, flush=True)
"""


@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_reaches_the_program_once(runs: Runs, to_group: bool) -> None:
    numbers = [int(number) for number in HANDED_ON]
    code = WITNESS.format(numbers=numbers, count=len(numbers))
    with runs.start(sys.executable, "-c", code, process_group=0) as process:
        assert next_line(process) == "ready"
        for number in numbers:
            (os.killpg if to_group else os.kill)(process.pid, number)
            assert next_line(process) == "heard"
        out, err = process.communicate(timeout=30)
    assert (out, process.returncode, err) == (f"{numbers}\n", 0, "")


LEAVES = """
import os, sys, time
said, telling = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.write(telling, b"1")
        sys.stdout.close(); os.close(1); os.close(2)
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(said, 1)  # the program's end is the other's end, too: it has said who it is by then
"""


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_program_that_forks_and_leaves_leaves_nothing(runs: Runs) -> None:
    done = runs.python(LEAVES)
    assert done.returncode == 0, done.stderr
    assert not alive(int(done.stdout))


@pytest.mark.parametrize("whom", ["run", "keeper", "program", "proxy"])
def test_whoever_is_killed_nothing_is_left(runs: Runs, whom: str) -> None:
    code = ASK + "ask()\n" + LEAVES + "time.sleep(600)"
    with runs.start(sys.executable, "-c", code) as process:
        left = int(next_line(process))
        until(lambda: "program" in kinds(runs))
        children = {name: int(pid) for name, pid in _family(process.pid).items()}
        os.kill({"run": process.pid, **children}[whom], signal.SIGKILL)
        _, err = process.communicate(timeout=30)
    assert process.returncode == {"run": -9, "proxy": 1}.get(whom, 137)
    assert ("proxy_ended" in err) == (whom == "proxy")
    until(lambda: not any(map(alive, [left, *children.values()])))


def _family(run: int) -> dict[str, str]:
    """Return the run's processes: of its two children, the keeper's is the program."""
    found: dict[str, str] = {}
    for child in Path(f"/proc/{run}/task/{run}/children").read_text().split():
        below = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        programs = [one for one in below if Path(f"/proc/{one}/cmdline").read_bytes().find(b"ask()") > 0]
        if programs:
            found |= {"keeper": child, "program": programs[0]}
        else:
            found["proxy"] = child
    return found


def test_a_proxy_that_ends_is_started_again(runs: Runs) -> None:
    code = ASK + "print(ask(), flush=True); sys.stdin.readline(); print(ask())"
    with runs.start(
        sys.executable, "-c", code, options=("--on-proxy-exit", "restart"), stdin=subprocess.PIPE
    ) as process:
        assert next_line(process) == "200"
        until(lambda: "program" in kinds(runs))
        os.kill(int(_family(process.pid)["proxy"]), signal.SIGKILL)
        out, err = process.communicate("go\n", timeout=30)
    assert (out, process.returncode) == ("200\n", 0)
    assert "is started again" in err


def test_a_proxy_that_cant_start_ends_the_program(runs: Runs) -> None:
    done = runs.run("sleep", "600", options=("--pin-file", "/dev/null"))
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("error: ") == 1
    with runs.start("true", options=("--output", "json"), environment={"HSM_KEYS_PIN_FILE": "/dev/null"}) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, set(json.loads(err)["error"])) == (4, "", {"code", "message", "hint"})


def test_two_programs_share_one_proxy(runs: Runs) -> None:
    code = ASK + "print(ask(), flush=True); sys.stdin.readline(); print(ask())"
    first = runs.start(sys.executable, "-c", code, options=("--client", "one"), stdin=subprocess.PIPE)
    second = runs.start(sys.executable, "-c", code, options=("--client", "two"), stdin=subprocess.PIPE)
    with first, second:
        assert (next_line(first), next_line(second)) == ("200", "200")
        same = runs.run("true", options=("--client", "two"))
        assert (same.returncode, "has a token" in same.stderr) == (2, True)
        assert first.communicate("go\n", timeout=30)[0] == "200\n"
        assert second.communicate("go\n", timeout=30)[0] == "200\n"
    assert kinds(runs).count("open") == 1
    until(lambda: runs.processes() == [])


@pytest.mark.parametrize(
    ("word", "exit_code", "code"),
    [
        ("no-such-program", 127, "program_not_found"),
        ("./no/such", 127, "program_not_found"),
        ("", 127, "program_not_found"),
        ("/etc/passwd", 126, "program_not_executable"),
        ("/etc", 126, "program_not_executable"),
    ],
)
def test_what_cant_be_run(word: str, exit_code: int, code: str) -> None:
    assert failed_json(exit_code, "--output", "json", "run", "--name", "prod", "--", word, "x")["code"] == code


@pytest.mark.parametrize("options", [(), ("--client", "two"), ("--contain",)])
def test_a_run_in_a_run_says_that_it_is_one(options: tuple[str, ...]) -> None:
    inside = {"KALSHI_PRIVATE_KEY_PATH": "/run/user/1/hsm-keys/throwaway-ed25519.pem"}
    refused = failed_json(2, "--output", "json", "run", "--name", "prod", *options, "--", "true", **inside)
    assert "another `hsm-keys run`" in refused["message"]


def test_options_of_the_program_are_its_own(runs: Runs) -> None:
    assert runs.run("echo", "--output", "json", "--name").stdout == "--output json --name\n"
    assert failed_json(2, "run", "--name", "prod", "--output", "json")["code"] == "usage"


def test_a_script_without_an_interpreter_is_the_shells(runs: Runs) -> None:
    script = runs.folder / "script"
    script.write_text("echo $1; exit 5\n")
    script.chmod(0o755)
    done = runs.run(str(script), "word")
    assert (done.returncode, done.stdout) == (5, "word\n")
