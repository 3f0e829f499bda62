"""A throwaway private key, for clients that need a PEM. The proxy drops the signatures that they make with it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PemType", "Throwaway", "holds_throwaway", "throwaway_in"]

PemType = Literal["rsa", "ed25519"]

_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class Throwaway:
    """The PEM (PKCS#8) as a text, and the file of mode 0600 that holds it."""

    path: Path
    pem: str


def holds_throwaway(environment: Mapping[str, str]) -> bool:
    """Tell whether an environment is that of a program behind a proxy: a throwaway is where its PEM would be."""
    names = [_file_name(pem_type) for pem_type in get_args(PemType)]
    return Path(environment.get("KALSHI_PRIVATE_KEY_PATH", "")).name in names


def _file_name(pem_type: PemType) -> str:
    return f"throwaway-{pem_type}.pem"


def throwaway_in(folder: Path, pem_type: PemType = "rsa") -> Throwaway:
    """Return the throwaway of a folder of this user alone; it is made where there is none.

    It is kept until the machine starts again: to make one takes longer than to start most programs.

    Args:
        folder: Where it is kept.
        pem_type: The type of its key: most clients take RSA, some Ed25519 alone.

    Raises:
        OSError: If the folder can't be used.
    """
    path = folder / _file_name(pem_type)
    with suppress(FileNotFoundError):
        return Throwaway(path, path.read_text(encoding="ascii"))
    pem = _generated(pem_type)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(pem)
    unfinished.replace(path)
    return Throwaway(path, pem)


def _generated(pem_type: PemType) -> str:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = (
        ed25519.Ed25519PrivateKey.generate()
        if pem_type == "ed25519"
        else rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
