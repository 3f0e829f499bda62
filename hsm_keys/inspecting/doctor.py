"""The checks of ``doctor``, one after the other. They change nothing and risk no try of a PIN."""

from __future__ import annotations

import platform
import sys
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hsm_keys._version import __version__
from hsm_keys.errors import HsmKeysError, KalshiError, NetworkError
from hsm_keys.kalshi.bodies import clean
from hsm_keys.kalshi.bootstrap_variables import VARIABLES
from hsm_keys.network_errors import why_not_reached
from hsm_keys.stores.checks import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.network_proxies import NetworkProxy
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = [
    "check_bootstrap",
    "check_clock",
    "check_network",
    "check_own_key",
    "check_store",
    "check_variables",
    "outcome",
]

_LIBRARIES: Final = ("python-pkcs11", "cryptography", "httpx2", "pydantic", "boto3")
_CONTRADICTING: Final = (
    *((variables.pem, variables.path, "both are refused") for variables in VARIABLES.values()),
    ("KALSHI_API_BASE_URL", "KALSHI_DEMO", "the first is read"),
    ("KALSHI_PERPS_API_BASE_URL", "KALSHI_PERPS_DEMO", "the first is read"),
    ("HSM_KEYS_PIN_FILE", "HSM_KEYS_PIN", "the first is read"),
)
"""Two variables that say the same thing, and what becomes of them together."""

_LIMIT_S: Final = 5.0
"""How far Kalshi lets a clock be off, as far as anybody has measured."""

_NOTICEABLE_S: Final = 2.0
_OF_A_WEBSOCKET: Final = frozenset({101, 400, 401, 403, 426, 429})
_TOO_MANY_REQUESTS: Final = 429


def outcome(checks: Sequence[Check]) -> tuple[str, int]:
    """Return the worst verdict, and the exit code of the first problem."""
    for check in checks:
        if check.verdict == "problem":
            return "problem", check.exit_code
    return ("warning" if any(check.verdict == "warning" for check in checks) else "ok"), 0


def check_variables(env: Mapping[str, str]) -> list[Check]:
    """Look at versions, and at environment variables that contradict each other."""
    parts = [f"hsm-keys {__version__}", f"Python {platform.python_version()}"]
    for library in _LIBRARIES:
        try:
            parts.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            parts.append(f"no {library}")
    interval = sys.getswitchinterval() * 1000
    checks = [
        Check("versions", "ok", ", ".join(parts)),
        Check(
            "threads",
            "ok",
            f"busy Python threads delay each signature by up to {interval:g} ms, the switch interval",
            "a program with busy threads can open the store with isolated=True, and lower the interval: "
            "sys.setswitchinterval(0.0001)",
        ),
    ]
    for one, other, together in _CONTRADICTING:
        if env.get(one) and env.get(other):
            checks.append(Check("variables", "warning", f"{one} and {other} are both set", f"unset one; {together}"))
    return checks


def check_network(urls: Sequence[str]) -> list[Check]:
    """Say through which of the network's proxies each of Kalshi's hosts is reached, if through any."""
    from hsm_keys.network_proxies import network_proxy

    hosts: dict[NetworkProxy | None, list[str]] = {}
    for url in urls:
        hosts.setdefault(network_proxy(url), []).append(urlsplit(url).hostname or url)
    return [_way(" and ".join(dict.fromkeys(some)), proxy) for proxy, some in hosts.items()]


def _way(hosts: str, proxy: NetworkProxy | None) -> Check:
    if proxy is None:
        return Check("network", "ok", f"no proxy on the way to {hosts}")
    remedy = "`hsm-keys proxy` takes no SOCKS proxy: it needs one that speaks HTTP" if proxy.speaks_socks else ""
    message = f"on the way to {hosts} there is the {proxy.scheme} proxy {proxy.place}, which {proxy.variable} names"
    return Check("network", "ok", message, remedy)


def check_clock(base_url: str, now: Callable[[], float] = time.time) -> list[Check]:
    """Ask Kalshi for its status, unsigned, and compare its Date with this machine's clock."""
    import httpx2

    from hsm_keys.kalshi.surroundings import client_options, why_not_trusted

    begun = now()
    try:
        response = httpx2.get(f"{base_url}/exchange/status", timeout=10, **client_options(base_url))
    except httpx2.HTTPError as error:
        raise NetworkError(
            f"{base_url} can't be reached: {_why(error)}",
            hint=why_not_trusted(error) or "check the network, and --env or --base-url",
        ) from None
    answered = now()
    message = f"{base_url} answered {response.status_code} in {(answered - begun) * 1000:.0f} ms"
    if response.is_server_error or response.status_code == _TOO_MANY_REQUESTS:
        return [Check("kalshi", "warning", message, "wait; if it lasts, look at Kalshi's status page")]
    if not _speaks_for_kalshi(response):
        remedy = "check --env or --base-url, which ends in /trade-api/v2; a proxy or a portal may answer in its place"
        return [Check("kalshi", "problem", f"{message}, and that isn't Kalshi's API", remedy, KalshiError.exit_code)]
    reached = Check("kalshi", "ok", message)
    try:
        date = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except ValueError:
        return [reached, Check("clock", "warning", "Kalshi sent no Date to compare the clock with")]
    return [reached, _clock(begun, answered, date)]


def check_websocket(url: str) -> Check:
    """Ask for a WebSocket, unsigned: Kalshi refuses that, while a host that serves none doesn't know the path."""
    import httpx2

    from hsm_keys.kalshi.surroundings import client_options

    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",  # the example of RFC 6455, section 1.3
        "Sec-WebSocket-Version": "13",
    }
    address = f"http{url.removeprefix('ws')}"
    remedy = "see --ws-url, or KALSHI_WS_URL: REST and WebSockets have hosts of their own"
    try:
        with httpx2.stream("GET", address, headers=handshake, timeout=10, **client_options(address)) as response:
            status = response.status_code
    except httpx2.HTTPError as error:
        return Check("websocket", "warning", f"{url} can't be reached: {_why(error)}", remedy)
    if status in _OF_A_WEBSOCKET:
        return Check("websocket", "ok", f"{url} answered an unsigned handshake with {status}")
    return Check("websocket", "warning", f"{url} answered {status}, which isn't a WebSocket's answer", remedy)


def _why(error: httpx2.HTTPError) -> str:
    return why_not_reached(error) or clean(str(error)) or type(error).__name__


def _speaks_for_kalshi(response: httpx2.Response) -> bool:
    """Tell whether an answer to ``GET /exchange/status`` is an object with the fields that it promises."""
    try:
        status = response.json()
    except ValueError:
        return False
    return response.is_success and isinstance(status, dict) and "exchange_active" in status


def _clock(begun: float, answered: float, date: float) -> Check:
    # The Date was true at some moment between the two, and leaves out fractions of its second.
    ahead = (begun + answered) / 2 - (date + 0.5)
    unsure = (answered - begun) / 2 + 0.5
    which = "ahead of" if ahead > 0 else "behind"
    message = f"this clock is {abs(ahead):.1f} s {which} Kalshi's, give or take {unsure:.1f} s"
    remedy = "set the clock by NTP: Kalshi refuses what is signed some seconds off (header_timestamp_expired)"
    if abs(ahead) - unsure > _LIMIT_S:
        return Check("clock", "problem", message, remedy, KalshiError.exit_code)
    if abs(ahead) - unsure > _NOTICEABLE_S:
        return Check("clock", "warning", message, remedy)
    return Check("clock", "ok", message)


def check_bootstrap(signer: RequestSigner | None, connect: Connect, exchange: str | None) -> list[Check]:
    """Sign GET requests with the bootstrap key that environment variables name."""
    if signer is None:
        return [Check("bootstrap", "skipped", f"there is no bootstrap key ({VARIABLES[exchange].id})")]
    return _taken("bootstrap", f"the bootstrap key {signer.api_key_id}", signer, connect)


def check_own_key(store: KeyStore, connect: Connect, environment: str) -> list[Check]:
    """Sign GET requests with keys of the store that belong to this environment, until Kalshi takes one."""
    registered = [key for key in store.keys() if key.api_key_id is not None]
    mine = [key for key in registered if key.environment in {None, environment}]
    refusal: HsmKeysError | None = None
    for key in mine:
        try:
            return _taken("credentials", f"the key {key.name!r} of the store", key.signer(), connect)
        except KalshiError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    message = f"no key of the store is registered in the environment {environment}"
    return [Check("credentials", "skipped", message, "see --env and --base-url")] if registered else []


def _taken(name: str, what: str, signer: RequestSigner, connect: Connect) -> list[Check]:
    from hsm_keys.inspecting.proof_of_possession import balance_path
    from hsm_keys.kalshi.errors import ForbiddenError

    client: KalshiClient
    with connect(signer) as client:
        try:
            client.get_json(balance_path(client.exchange))
        except ForbiddenError as error:
            check = Check(name, "warning", f"{what} may not read the balance: {error.message}", error.hint)
        else:
            check = Check(name, "ok", f"Kalshi takes {what}")
        return [check, *_attestation(client)]


def _attestation(client: KalshiClient) -> list[Check]:
    """Look at the account's location attestation, where the key may list the account's keys."""
    from hsm_keys.kalshi.attestation import attestation_of

    attestation = None
    with suppress(KalshiError):
        attestation = attestation_of(client.api_keys.list())
    if attestation is None:
        return []
    return [Check("attestation", "warning" if attestation.is_due else "ok", attestation.message, attestation.remedy)]


def check_store(store: KeyStore) -> list[Check]:
    """Look at what an open store holds, and at what it says of itself."""
    contents = store.contents()
    keys = contents.keys
    names = ", ".join(f"{key.name} ({_belonging(key)})" for key in keys) or "none"
    checks = [Check("store", "ok", f"{store.describe()} is open, with {len(keys)} keys: {names}")]
    checks += store.diagnose(keys)
    if contents.unusable:
        problems = "; ".join(f"{each.name}: {each.problem}" for each in contents.unusable)
        counted = f"{len(contents.unusable)} private halves can't be used, and are passed over: {problems}"
        checks.append(
            Check("objects", "warning", counted, "other keys work; repair or remove these with the tool that made them")
        )
    return checks


def _belonging(key: StoredKey) -> str:
    return key.state.value if key.environment is None else f"environment {key.environment}"
