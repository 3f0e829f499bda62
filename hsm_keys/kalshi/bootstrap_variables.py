"""The environment variables that hold a bootstrap key: each exchange has its own, by kalshi-sdk's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hsm_keys.signing.environments import PERPS

__all__ = ["VARIABLES", "BootstrapVariables", "bootstrap_variables"]


@dataclass(frozen=True, slots=True)
class BootstrapVariables:
    """The names of the variables that hold a bootstrap key."""

    id: str
    pem: str
    path: str
    passphrase: str

    @property
    def to_set(self) -> str:
        """Those that a person sets, as a hint names them."""
        return f"{self.id} and {self.path}"


VARIABLES: Final = {
    None: BootstrapVariables(
        id="KALSHI_KEY_ID",
        pem="KALSHI_PRIVATE_KEY",
        path="KALSHI_PRIVATE_KEY_PATH",
        passphrase="KALSHI_PRIVATE_KEY_PASSPHRASE",  # noqa: S106 - the name of a variable
    ),
    PERPS: BootstrapVariables(
        id="KALSHI_PERPS_KEY_ID",
        pem="KALSHI_PERPS_PRIVATE_KEY",
        path="KALSHI_PERPS_PRIVATE_KEY_PATH",
        passphrase="KALSHI_PERPS_PRIVATE_KEY_PASSPHRASE",  # noqa: S106 - the same
    ),
}
"""By exchange; None for the one of event contracts."""


def bootstrap_variables(environment: str) -> BootstrapVariables:
    """Return the variables that hold a bootstrap key for an environment, such as ``prod`` or ``demo-perps``."""
    return VARIABLES[PERPS if environment.endswith(f"-{PERPS}") else None]
