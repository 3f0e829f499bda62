"""A real KMS server for tests: ministack, in a virtual environment of its own, over HTTP.

``python -m tests.support.install_ministack`` makes the environment, once. ``HSM_KEYS_TEST_MINISTACK`` names another
``ministack`` program. Its access keys of 12 digits are account ids:
each test has an account to itself.
"""

from __future__ import annotations

import atexit
import os
import secrets
import subprocess
import time
from functools import cache
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.support.install_ministack import FOLDER, is_there
from tests.support.ports import free_port

REGION = "us-east-1"
OTHER_REGION = "us-west-2"

_STARTS_WITHIN_S = 60.0


def program() -> list[str]:
    """Return what starts it: a program that was named, or its own Python and a file."""
    named = os.environ.get("HSM_KEYS_TEST_MINISTACK")
    own = [str(FOLDER / "bin" / "python"), "-P", str(Path(__file__).with_name("ministack_server.py"))]
    return [named] if named else own


@cache
def endpoint() -> str:
    """Start the server, once a process, and return its URL; in CI a missing server is a failure."""
    if not is_there():
        pytest.skip(f"ministack is needed: {program()[0]} isn't there; run: python -m tests.support.install_ministack")
    return start()


def start(**environment: str) -> str:
    """Start a server that ends with this process, and return its URL once it is healthy."""
    port = free_port()
    server = subprocess.Popen(
        program(),
        env={
            "PATH": os.environ["PATH"],
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "SERVICES": "kms,iam,sts",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(_stop, server)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not _healthy(url):
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"ministack didn't start (exit code {server.poll()})")
        time.sleep(0.1)
    return url


def _healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/_ministack/health", timeout=2) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(10)


def credentials(monkeypatch: pytest.MonkeyPatch, url: str, *, access_key: str = "", secret: str = "") -> str:
    """Point AWS's variables to a server, and to nothing else; return the access key (ministack's account id)."""
    secret = secret or "test"
    access_key = access_key or str(secrets.randbelow(9 * 10**11) + 10**11)
    for name, value in {
        "AWS_ENDPOINT_URL_KMS": url,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    return access_key


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty account on the server, and AWS's variables pointing to it."""
    return credentials(monkeypatch, endpoint())
