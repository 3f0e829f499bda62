"""Modules of other makers for the conformance suite, each set up from Debian's packages and taken down again.

- ``spy``: OpenSC's pkcs11-spy in front of SoftHSM (opensc).
- ``p11-kit-proxy``: p11-kit's proxy, which shows the tokens of every registered module (p11-kit).
- ``nss``: NSS's certificate database through that proxy, as root (libnss3 libnss3-tools p11-kit).
- ``piv-opensc``: a PIV card through OpenSC, as root (pcscd vsmartcard-vpcd opensc-pkcs11).
- ``piv-ykcs11``: the same card through Yubico's module (pcscd vsmartcard-vpcd ykcs11).
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tests.support import piv_card
from tests.support.card_reader import CardReader
from tests.support.piv_card import PivCard
from tests.support.softhsm import SoftHsm

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES: Final = ("spy", "p11-kit-proxy", "nss", "piv-opensc", "piv-ykcs11")

_LIBRARIES: Final = Path("/usr/lib/x86_64-linux-gnu")
_REGISTERED: Final = Path("/etc/pkcs11/modules/hsm-keys-tests.module")
_PIN: Final = "pin-canary-4711"


@dataclass(frozen=True)
class Setup:
    """A module that is ready.

    Args:
        uri: Names module and token, and where the PIN is.
        environment: What the module reads.
        existing: A key that the token holds and that its own tools made; empty where the token makes keys itself.
        custody: Whether the token keeps its keys to itself.
    """

    uri: str
    environment: dict[str, str] = field(default_factory=dict)
    existing: str = ""
    custody: bool = True


@contextmanager
def set_up(name: str, folder: Path) -> Iterator[Setup]:
    """Give the module of that name, and take it down again. p11-kit reads its configuration once a process: so once.

    Args:
        name: One of ``NAMES``.
        folder: For its state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pin = folder / "pin"
    pin.touch(mode=0o600)
    with ExitStack() as stack:
        if name == "spy":
            yield _in_front_of_softhsm("pkcs11-spy.so", folder)
        elif name == "p11-kit-proxy":
            yield _in_front_of_softhsm("p11-kit-proxy.so", folder)
        elif name == "nss":
            yield _nss(folder, pin, stack)
        else:
            pin.write_text(piv_card.PIN + "\n")
            stack.enter_context(CardReader(PivCard(), folder / "reader"))
            if name == "piv-opensc":
                yield Setup(_uri("opensc-pkcs11.so", "", pin), existing="PIV AUTH key")
            else:
                yield Setup(_uri("libykcs11.so", "", pin), existing="Private key for PIV Authentication")


def _uri(module: str, label: str, pin: Path) -> str:
    token = f"token={quote(label)}" if label else ""
    return f"pkcs11:{token}?module-path={_LIBRARIES / module}&pin-source=file:{pin}"


def _in_front_of_softhsm(module: str, folder: Path) -> Setup:
    softhsm = SoftHsm(folder)
    token = softhsm.init_token()
    variables = {
        "SOFTHSM2_CONF": str(softhsm.conf),
        "PKCS11SPY": token.module,
        "PKCS11SPY_OUTPUT": str(folder / "spy.log"),
    }
    return Setup(_uri(module, token.label, token.pin_file), variables)


def _nss(folder: Path, pin: Path, stack: ExitStack) -> Setup:
    """NSS takes its settings from a field of C_Initialize's arguments that only p11-kit fills in."""
    pin.write_text(_PIN + "\n")
    subprocess.run(["certutil", "-N", "-d", f"sql:{folder}", "-f", pin], check=True, capture_output=True)
    _REGISTERED.parent.mkdir(parents=True, exist_ok=True)
    _REGISTERED.write_text(
        f"module: {_LIBRARIES / 'libsoftokn3.so'}\n"
        f"x-init-reserved: configDir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=\n"
    )
    stack.callback(_REGISTERED.unlink)
    # NSS copies a private key that isn't extractable into one that is: custody has to say so.
    return Setup(_uri("p11-kit-proxy.so", "NSS Certificate DB", pin), custody=False)
