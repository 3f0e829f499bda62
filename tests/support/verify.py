"""Verification by other hands: openssl's command line."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def openssl_verifies(folder: Path, pem: str, message: bytes, signature: bytes, *, salt: int = 32) -> bool:
    """Tell what openssl says: RSASSA-PSS with SHA-256 and exactly that salt, or Ed25519."""
    (folder / "key.pem").write_text(pem)
    (folder / "message").write_bytes(message)
    (folder / "signature").write_bytes(signature)
    common = ["-pubin", "-inkey", "key.pem", "-sigfile", "signature", "-in", "message"]
    if (
        b"ED25519"
        in subprocess.run(
            ["openssl", "pkey", "-pubin", "-in", "key.pem", "-noout", "-text"],
            cwd=folder,
            capture_output=True,
            check=True,
        ).stdout
    ):
        command = ["openssl", "pkeyutl", "-verify", "-rawin", *common]
    else:
        pss = ["rsa_padding_mode:pss", f"rsa_pss_saltlen:{salt}", "rsa_mgf1_md:sha256"]
        options = [word for option in pss for word in ("-pkeyopt", option)]
        command = ["openssl", "pkeyutl", "-verify", "-rawin", "-digest", "sha256", *common, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
