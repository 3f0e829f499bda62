"""One botocore session a process and profile, and one client a Region; anew in a forked child."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.session  # type: ignore[import-untyped]  # botocore has no annotations
from botocore.config import Config  # type: ignore[import-untyped]  # the same

from hsm_keys._version import __version__
from hsm_keys.errors import UsageError
from hsm_keys.forks import ProcessLock
from hsm_keys.signing.environments import is_loopback
from hsm_keys.stores.awskms.credentials import SteadyCredentials, check_credentials
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask, load_configuration, refuses_credentials
from hsm_keys.stores.awskms.errors import AwsRegionError
from hsm_keys.stores.awskms.logs import hide_signatures
from hsm_keys.stores.awskms.no_credentials import no_credentials_at_all
from hsm_keys.stores.awskms.uri import check_region
from hsm_keys.values import shown_path

__all__ = ["MANAGEMENT", "KmsConnection", "Patience", "acquire_connection"]

_POOL: Final = 256
"""Connections kept a client: with fewer than threads, each further signature would pay for a new TLS handshake."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call may take; botocore itself never repeats it.

    Args:
        connect_s: Seconds for a connection.
        read_s: Seconds for the answer.
        renew_s: Seconds that new credentials may take within the call, where AWS refuses those at hand; then it is
            sent once more. With 0 that is left to the caller.
    """

    connect_s: float
    read_s: float
    renew_s: float = 0.0


_ANY: Final = Config()
_NONE: Final = Config(proxies={})
"""What a client is told of the network's proxies."""

MANAGEMENT: Final = Patience(connect_s=3.0, read_s=20.0, renew_s=20.0)
"""For calls that make or change a key: RSA-4096 takes KMS its time, and nobody trades meanwhile."""


class KmsConnection:
    """A session with its credentials, and the clients made of it.

    Args:
        profile: A profile of AWS's configuration files; None for AWS's own variables.

    Raises:
        AwsCredentialsError: If there are no credentials.
    """

    def __init__(self, profile: str | None) -> None:
        self.users = 0
        hide_signatures()
        _check_authorities()
        self.session: Any = load_configuration(botocore.session.Session, profile=profile)
        source = load_configuration(_look_up, session=self.session)
        if source is None:
            raise no_credentials_at_all()
        self.credentials: SteadyCredentials = load_configuration(
            SteadyCredentials,
            source=source,
            # A session keeps the configuration files as it read them first.
            look_up=lambda: _look_up(botocore.session.Session(profile=profile)),
        )
        self.session.register_component("credential_provider", _Fixed(self.credentials))
        self._clients: dict[tuple[str, Patience], Any] = {}
        self._proxies = _ANY
        self._lock = threading.Lock()

    def default_region(self) -> str:
        """Return the Region of AWS's own configuration.

        Raises:
            AwsRegionError: If it names none.
        """
        # Other AWS SDKs read AWS_REGION, botocore only AWS_DEFAULT_REGION.
        named = os.environ.get("AWS_REGION") or load_configuration(
            self.session.get_config_variable, logical_name="region"
        )
        if not named:
            raise AwsRegionError(
                "no AWS Region is named", hint="give --region, region= in the store's URI, or AWS_REGION"
            )
        return check_region(str(named))

    def client(self, region: str, patience: Patience) -> Any:
        """Return the client of a Region; made once, safe on many threads."""
        client = self._clients.get((region, patience))
        if client is None:
            with self._lock:
                client = self._clients.get((region, patience))
                if client is None:
                    client = self._clients[region, patience] = self._make(region, patience)
        return client

    def _make(self, region: str, patience: Patience) -> Any:
        config = Config(
            connect_timeout=patience.connect_s,
            read_timeout=patience.read_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_POOL,
            parameter_validation=False,  # what this package sends is checked by its own types
            tcp_keepalive=True,
            # Named as a whole: otherwise botocore builds the text twice a request, a sixth of its own time.
            user_agent=f"hsm-keys/{__version__} {self.session.user_agent()}",
        )

        client = self._create(region, config.merge(self._proxies))
        if urlsplit(client.meta.endpoint_url).scheme != "https":
            _check_loopback(client.meta.endpoint_url)
            if self._proxies is not _NONE:  # one would get requests in plain text
                self._proxies = _NONE
                client = self._create(region, config.merge(self._proxies))
        if patience.renew_s:
            client.meta.events.register("needs-retry.kms", partial(self._send_again, patience.renew_s))
        return client

    def _create(self, region: str, config: Any) -> Any:
        def create() -> Any:
            try:
                return self.session.create_client("kms", region_name=region, config=config)
            except ValueError:
                raise UsageError(
                    "the endpoint in AWS's configuration isn't a URL",
                    hint="AWS_ENDPOINT_URL_KMS and AWS_ENDPOINT_URL look like https://host:port",
                ) from None

        return ask(KmsCall("make a client", "", region), create)

    def _send_again(self, timeout_s: float, attempts: int, response: Any, **_: Any) -> float | None:
        """Answer botocore's event ``needs-retry``: 0 sends the call again at once, signed anew; None doesn't."""
        if attempts > 1 or response is None or not refuses_credentials(response[1]):
            return None
        return 0.0 if self.credentials.renewal()(timeout_s) else None

    def release(self) -> None:
        """Give the connection back; the last user closes it."""
        with _lock:
            self.users -= 1
            if self.users > 0:
                return
            for setting in [setting for setting, connection in _connections.items() if connection is self]:
                del _connections[setting]
        self.credentials.close()
        for client in self._clients.values():
            client.close()


def _check_authorities() -> None:
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):  # botocore reads the second where the first is not set
        path = os.environ.get(variable)
        if path and not os.path.exists(path):
            raise UsageError(
                f"{variable} names {shown_path(path)}, and there is no such file",
                hint=f"the file has the authorities to trust for KMS: correct {variable}, or leave it out",
            )


def _check_loopback(endpoint: str) -> None:
    host = urlsplit(endpoint).hostname or ""
    if not is_loopback(host):
        raise UsageError(
            f"the endpoint of KMS, http://{host}, is neither https nor loopback",
            hint="others could read and change requests over http: use https in AWS_ENDPOINT_URL_KMS or "
            "AWS_ENDPOINT_URL",
        )


def _look_up(session: Any) -> Any:
    credentials = session.get_component("credential_provider").load_credentials()
    return credentials and check_credentials(credentials)


class _Fixed:
    """The one provider of a session's credentials."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        """Return them, as botocore's chain of providers would."""
        return self._credentials


_lock = ProcessLock()
_connections: dict[tuple[str | None, int], KmsConnection] = {}
# Two processes on one TLS connection garble each other's answers: a child connects by itself.
os.register_at_fork(after_in_child=_connections.clear)


def acquire_connection(profile: str | None) -> KmsConnection:
    """Return the process's connection for a profile and AWS's variables as they are now.

    Give it back with ``release()``.

    Raises:
        AwsCredentialsError: If there are no credentials.
    """
    variables = hash(frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    with _lock:
        connection = _connections.get((profile, variables))
        if connection is None:
            connection = _connections[profile, variables] = KmsConnection(profile)
        connection.users += 1
        return connection
