"""What people give in place of an API key id or of a PEM: it is named, not sent, and what the hint says helps."""

from __future__ import annotations

import base64
import re
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from hsm_keys.errors import UsageError
from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.pem import PemKey, load_private_key
from hsm_keys.signing.signer import RequestSigner
from tests.support.canaries import pieces

if TYPE_CHECKING:
    from pathlib import Path

ID: Final = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"
KEY: Final = Ed25519PrivateKey.generate()
PEM: Final = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
BODY: Final = b"".join(PEM.splitlines()[1:-1])
RSA_PEM: Final = rsa.generate_private_key(65537, 2048).private_bytes(
    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
)

ROUND_IDS = [
    '"{}"',
    "'{}'",
    "{},",
    "{};",
    '"{}",',
    "`{}`",
    "\u201c{}\u201d",
    "<{}>",
    "[{}]",
    "{{{}}}",
]


@pytest.mark.parametrize("form", ROUND_IDS)
def test_an_api_key_id_with_something_round_it_is_refused_before_it_is_sent(form: str) -> None:
    given = form.format(ID)
    with pytest.raises(UsageError) as caught:
        bootstrap_key_from_env({"KALSHI_KEY_ID": given, "KALSHI_PRIVATE_KEY": PEM.decode()})
    assert caught.value.message.startswith("KALSHI_KEY_ID is wrong: ")
    assert "around it" in caught.value.message
    assert given not in f"{caught.value.message} {caught.value.hint}"
    for use in (check_api_key_id, lambda api_key_id: RequestSigner(PemKey(ID, PEM), api_key_id=api_key_id)):
        with pytest.raises(UsageError, match="around it"):
            use(given)
    assert check_api_key_id(ID.upper()) == ID


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "OLD"
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def _key_in(path: Path) -> PemKey | None:
    return bootstrap_key_from_env({"KALSHI_KEY_ID": ID, "KALSHI_PRIVATE_KEY_PATH": str(path)})


FORMS: Final[dict[str, tuple[bytes, str]]] = {
    "literal line ends": (PEM.replace(b"\n", b"\\n"), r"it has \n, written out, where its lines should end"),
    "literal line ends of RSA": (RSA_PEM.replace(b"\n", b"\\n"), r"it has \n, written out"),
    "literal CR and LF": (PEM.replace(b"\n", b"\\r\\n"), r"it has \n, written out"),
    "UTF-16 of PowerShell": (b"\xff\xfe" + PEM.decode().encode("utf-16-le"), "it is in UTF-16"),
    "UTF-16 the other way": (b"\xfe\xff" + PEM.decode().encode("utf-16-be"), "it is in UTF-16"),
    "UTF-16 without a mark": (PEM.decode().encode("utf-16-le"), "it is in UTF-16"),
    "base64 of the PEM": (base64.b64encode(PEM), "it is base64 of a PEM"),
    "base64 without its lines": (BODY, "it is base64 without the lines before and after it"),
    "the same of RSA": (b"\n".join(RSA_PEM.splitlines()[1:-1]), "it is base64 without the lines before and after it"),
    "DER of RSA": (
        rsa.generate_private_key(65537, 2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "it is in DER",
    ),
    "DER": (KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), "it is in DER"),
    "OpenSSH": (
        KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).replace(b"-----END", b"-----EN"),
        "it is in OpenSSH's format",
    ),
    "public": (KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "it is a public key"),
    "cut off": (PEM[:-30], "it is cut off"),
    "empty": (b" \n", "there is nothing in it"),
    "a word": (b"secret", "it is no PEM"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_pem_is_named_and_not_repeated(tmp_path: Path, form: str) -> None:
    content, said = FORMS[form]
    with pytest.raises(UsageError) as caught:
        _key_in(_file(tmp_path, content))
    assert caught.value.message.startswith(f"KALSHI_PRIVATE_KEY_PATH is wrong: the private key can't be read: {said}")
    assert caught.value.hint
    shown = f"{caught.value.message} {caught.value.hint}"
    assert not [piece for piece in pieces(PEM.decode()) if piece in shown]
    with pytest.raises(UsageError, match="the private key can't be read"):
        load_private_key(content)


# what the hint has in it, with OLD and NEW; "," and " or " end it
_COMMAND: Final = re.compile(r"((?:sed|iconv|base64|openssl) .*?OLD (?:> |-out )NEW)")


@pytest.mark.parametrize(
    "form",
    [
        "literal line ends",
        "literal line ends of RSA",
        "UTF-16 of PowerShell",
        "UTF-16 the other way",
        "base64 of the PEM",
        "DER",
        "DER of RSA",
    ],
)
def test_the_command_of_the_hint_makes_a_pem_of_it(tmp_path: Path, form: str) -> None:
    with pytest.raises(UsageError) as caught:
        _key_in(_file(tmp_path, FORMS[form][0]))
    command = _COMMAND.search(caught.value.hint)
    assert command, caught.value.hint
    subprocess.run(["bash", "-c", f"umask 077; {command[1]}"], cwd=tmp_path, check=True, capture_output=True)
    assert _key_in(tmp_path / "NEW")


def test_base64_without_its_lines_is_a_pem_with_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _key_in(_file(tmp_path, BODY))
    begin = re.search(r"-----BEGIN PRIVATE KEY-----", caught.value.hint)
    assert begin
    whole = f"{begin[0]}\n{BODY.decode()}\n{begin[0].replace('BEGIN', 'END')}\n"
    assert _key_in(_file(tmp_path, whole.encode()))


def test_literal_line_ends_are_taken_where_variables_have_them() -> None:
    for given in (PEM.replace(b"\n", b"\\n"), PEM):
        assert bootstrap_key_from_env({"KALSHI_KEY_ID": ID, "KALSHI_PRIVATE_KEY": given.decode()})
