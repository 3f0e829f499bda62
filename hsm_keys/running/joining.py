"""Finds a proxy for a key that no run has started, and checks that a program can use it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsm_keys.errors import KeyBusyError, StoreNotFoundError, UsageError
from hsm_keys.proxy.controlling import ProxyChoice, find_one
from hsm_keys.values import shown_path

__all__ = ["RunningProxy", "find_proxy"]

_AT_LOOPBACK: Final = "http://127.0.0.1:"
_AT_SOCKET: Final = "the socket "
_CONNECTS_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy that serves, on loopback or at a Unix socket.

    Args:
        process: Its process.
        base_url: Kalshi's, as the proxy has it.
        is_frozen: Whether it signs nothing.
        port: Where it listens on loopback.
        tokens: The folder with its clients' tokens there.
        socket: Its Unix socket; None on loopback.
        client: The client that this user is to it at that socket.
    """

    process: int
    base_url: str
    is_frozen: bool
    port: int = 0
    tokens: Path | None = None
    socket: Path | None = None
    client: str = ""


def find_proxy(name: str) -> RunningProxy | None:
    """Return the proxy of a key, if this user has one.

    Raises:
        UsageError: If no program can be behind it: it is another user's, or clients can't be given tokens of it.
        StoreAmbiguousError: If there are several.
        KeyBusyError: If it is starting.
        OutcomeUnknownError: If it gives no answer.
    """
    try:
        answer = find_one(ProxyChoice(name=name))
        owner = answer.socket.stat().st_uid
    except (StoreNotFoundError, FileNotFoundError):
        return None
    if owner != os.geteuid():
        raise UsageError(
            f"the proxy for {name!r} belongs to the user {owner}, and serves no other user's programs",
            hint="run the program as that user",
        )
    known = answer.said
    if known["name"] != name:
        raise UsageError(
            f"the proxy at {shown_path(answer.socket)} is for the key {known['name']!r}, and not for {name!r}",
            hint=f"run it with --name {known['name']}, or end that proxy",
        )
    place, tokens = str(known["serves_at"]), str(known["token_folder"])
    common = int(known["pid"]), str(known["base_url"]), bool(known["frozen"])
    if not place:
        raise KeyBusyError(f"the proxy for {name!r} is starting", hint="try again in a moment")
    if place.startswith(_AT_SOCKET):
        path = Path(place.removeprefix(_AT_SOCKET))
        _check_listens(name, path)
        return RunningProxy(*common, socket=path, client=str(known["client_of_user"]))
    if place.startswith(_AT_LOOPBACK) and tokens:
        port = int(place.removeprefix(_AT_LOOPBACK).partition("/")[0])
        return RunningProxy(*common, port=port, tokens=Path(tokens))
    raise UsageError(
        f"a proxy for {name!r} runs already, but `run` can't give a program a token for it",
        hint="start that proxy at its socket, or with --listen 127.0.0.1:PORT and --clients; or end it, and `run` "
        "starts one",
    )


def _check_listens(name: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECTS_WITHIN_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(
                f"a proxy for {name!r} runs, and its socket {shown_path(path)} can't be used: {reason}",
                hint="start that proxy again; or end it: `run` starts one",
            ) from None
