"""``run``: a program behind a proxy."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import api_key_id_option, secret_files, settings_options
from hsm_keys.cli.output import fail
from hsm_keys.errors import UsageError
from hsm_keys.processes import be_private, keep_to_itself

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings
    from hsm_keys.running.containing.container import Container
    from hsm_keys.running.front import OnProxyExit
    from hsm_keys.running.noting import Note
    from hsm_keys.running.sharing import Share
    from hsm_keys.running.throwaway import PemType

__all__ = ["run"]

_PIN_SOURCE: Final = re.compile(r"\bpin-source=(?:file:)?([^&;]+)")  # RFC 7512


@command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: hsm-keys run --name prod --policy policy.toml -- python bot.py",
)
@click.option("--name", metavar="NAME", help="The key that the proxy signs with.")
@api_key_id_option
@click.option(
    "--policy", type=click.Path(path_type=Path), help="What the program may do (TOML); as for `hsm-keys proxy`."
)
@click.option("--client", metavar="NAME", show_default="run", help="The program's name in the policy.")
@click.option(
    "--on-proxy-exit",
    type=click.Choice(["kill", "restart"]),
    default="kill",
    show_default=True,
    help="What happens if the proxy ends before the program: end the program, or start the proxy again.",
)
@click.option(
    "--pem-type",
    type=click.Choice(["rsa", "ed25519"]),
    default="rsa",
    show_default=True,
    help="The throwaway PEM that the program gets; some clients take only Ed25519.",
)
@click.option("--contain", is_flag=True, help="Let the program reach only Kalshi, through the proxy (Linux).")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="HOST[:PORT]",
    help="With --contain: a further host that the program may reach; can be repeated.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD [ARGS]...")
@settings_options
@click.pass_obj
def run(
    settings: Settings,
    /,
    *,
    name: str | None,
    api_key_id: str | None,
    policy: Path | None,
    client: str | None,
    on_proxy_exit: OnProxyExit,
    pem_type: PemType,
    contain: bool,
    allowed: tuple[str, ...],
    words: tuple[str, ...],
) -> int:
    """Run a program that holds no key, with a proxy for as long as it runs, and with the variables of Kalshi's clients.

    The exit code is the program's: 128 plus the number of a signal that ended it, 127 if there is no such program, 126
    if it can't be run. The program gets a token for the proxy instead of an API key id, a throwaway PEM, and none of
    the variables that open the store.
    """
    if not name:
        raise UsageError("no key is named to sign with", hint="give --name, such as --name prod")
    if not words:
        raise UsageError("there is no program to run", hint="give the program after --, as in: -- python bot.py")
    from hsm_keys.cli.session import kalshi_base_url
    from hsm_keys.proxy.locations import control_socket
    from hsm_keys.running.front import Front
    from hsm_keys.running.noting import Note
    from hsm_keys.running.programs import find_program
    from hsm_keys.running.proxy_process import ProxyProcess
    from hsm_keys.running.sharing import Share, Terms
    from hsm_keys.running.starting import Program
    from hsm_keys.running.throwaway import holds_throwaway, throwaway_in
    from hsm_keys.running.variables import environment_for

    if holds_throwaway(os.environ):
        raise UsageError(
            "this is a program of another `hsm-keys run` already, which can't open a store",
            hint="start the program without `hsm-keys run`: the variables that it needs are set",
        )
    be_private()
    if policy is None and settings.policy:
        policy = Path(settings.policy)
    if allowed and not contain:
        raise UsageError("--allow-host needs --contain", hint="give --contain too, or leave --allow-host out")
    path = find_program(words[0], os.environ)
    place = str(policy.absolute()) if policy else ""
    terms = Terms(kalshi_base_url(settings), settings.ws_url or "", place, api_key_id or "")
    throwaway = throwaway_in(control_socket(name).parent, pem_type)
    pins = _pin_files(settings)
    with ExitStack() as stack:
        share = stack.enter_context(Share(name, client, terms))
        if share.socket is not None:
            from hsm_keys.running.socket_bridge import SocketBridge

            share.port = stack.enter_context(SocketBridge(share.socket, share.token)).port
        if share.is_frozen:
            _report(f"warning: signing is frozen: `hsm-keys proxy thaw --name {name}` resumes it")
        note = Note(share.proxy, share.client, path, arguments=len(words) - 1)
        container = None
        if contain:
            container = stack.enter_context(_container(share, terms.base_url, allowed, pins, note))
            throwaway = container.prepare(path, os.environ, throwaway)
        environment = environment_for(os.environ, port=share.port, token=share.token, throwaway=throwaway)
        if container is not None:
            environment = container.environment(environment)
        program = Program(path, words, environment, _streams(pins))
        front = Front(
            share,
            ProxyProcess(share, _proxy(settings, policy, share)),
            on_proxy_exit=on_proxy_exit,
            note=note,
            report=_report,
            container=container,
        )
        return front.run(program, proxy_first=_asks(settings, pins))


def _container(share: Share, base_url: str, allowed: tuple[str, ...], pins: list[str], note: Note) -> Container:
    from hsm_keys.proxy.locations import state_folder
    from hsm_keys.running.containing.container import Container, check_system
    from hsm_keys.running.containing.streams import check_streams

    check_system()
    check_streams(_streams(pins))
    tokens = [] if share.clients is None else [share.clients]
    hidden: list[str | Path] = [*pins, *tokens, share.folder.parent, state_folder(share.name).parent]
    return Container(share.folder, base_url, share.port, allowed, hidden=hidden, note=note.relayed)


def _proxy(settings: Settings, policy: Path | None, share: Share) -> Callable[[Callable[[], None]], int]:
    """Return what is the proxy, in a process of its own."""

    def serve(began: Callable[[], None]) -> int:
        try:
            _serve(settings, policy, share, began)
        except Exception as error:  # noqa: BLE001 - the last line of defence, as in the program's own
            return fail(error, as_json=settings.as_json)
        return 0

    return serve


def _serve(settings: Settings, policy: Path | None, share: Share, began: Callable[[], None]) -> None:
    keep_to_itself()
    from hsm_keys.cli.session import kalshi_base_url, opened_store, signing_key
    from hsm_keys.kalshi.surroundings import check_authorities
    from hsm_keys.signing.environments import environment_name, web_hosts

    def report(line: str) -> None:
        if line.startswith("serving "):
            began()
        elif not line.startswith("stopping"):
            _report(line)

    base_url = kalshi_base_url(settings)
    if base_url.startswith("https:"):
        check_authorities()
    runner = import_extra("proxy", "hsm_keys.proxy.run")
    proxy_options = import_extra("proxy", "hsm_keys.proxy.options")
    options = proxy_options.Options(
        name=share.name,
        listen=f"127.0.0.1:{share.port}",
        clients=share.clients,
        policy=policy,
        hosts=frozenset(web_hosts(environment_name(base_url))),
        listener=share.listener,
    )
    checked = proxy_options.check_options(options)
    import_extra("proxy", "hsm_keys.proxy.logs").report_libraries(report)
    with opened_store(settings, report) as store:
        signer = signing_key(store, share.name, settings, share.terms.api_key_id or None)
        runner.run(signer, base_url, checked, report, ws_url=settings.ws_url)


def _report(line: str) -> None:
    with suppress(OSError):  # the proxy continues even when the run that reads its messages has ended
        click.echo(line, err=True)


def _pin_files(settings: Settings) -> list[str]:
    """Return the files that a PIN may be read from, by options and variables."""
    stores = [*settings.stores, os.environ.get("HSM_KEYS_STORE", "")]
    return secret_files(settings) + [unquote(source) for uri in stores for source in _PIN_SOURCE.findall(uri)]


def _streams(pins: list[str]) -> tuple[int, int, int]:
    """Return what is to be the program's standard streams: as they came in, but for an input that holds the PIN."""
    stdin = 0
    for file in pins:
        try:
            if os.path.samestat(os.stat(file), os.fstat(0)):  # noqa: PTH116 - /dev/stdin is a link
                stdin = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            continue
    return stdin, sys.stdout.fileno(), sys.stderr.fileno()


def _asks(settings: Settings, pins: list[str]) -> bool:
    """Tell whether the proxy may need standard input: for a PIN that is typed, or that is read from there."""
    if _streams(pins)[0] != 0:
        return True
    from hsm_keys.cli.store_uri import chosen_backend

    has_pin = pins or os.environ.get("HSM_KEYS_PIN") is not None
    return sys.stdin.isatty() and chosen_backend(settings).has_pin and not has_pin
