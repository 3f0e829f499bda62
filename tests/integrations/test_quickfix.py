"""The application of docs/fix.md in QuickFIX, an engine that nobody here wrote, before a gateway that verifies."""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hsm_keys import KeyType, open_store
from tests.docs.test_readme import blocks_of
from tests.support.cli import ROOT
from tests.support.fix_gateway import FixGateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys import RequestSigner
    from hsm_keys.sandbox.state import SandboxKey

pytestmark = [
    pytest.mark.softhsm,
    pytest.mark.skipif(find_spec("quickfix") is None, reason="quickfix-tls has no wheel for this machine"),
    pytest.mark.parametrize("store_uri", ["SoftHSM"], indirect=True),
]

BLOCKS = {block.language: block.code for block in blocks_of((ROOT / "docs" / "fix.md").read_text())}


def initiator(signer: RequestSigner, gateway: FixGateway, folder: Path, logged_on: threading.Event) -> Any:
    """Return QuickFIX with the documented settings and application, at the gateway of the tests."""
    fix: Any = import_module("quickfix")
    space: dict[str, Any] = {}
    exec(BLOCKS["python"], space)  # noqa: S102 - the documented text is what is tested
    documented: Any = space["Application"]

    class Listening(documented):  # type: ignore[misc]  # it is made of text
        def onLogon(self, session: Any) -> None:  # noqa: N802 - QuickFIX's name
            logged_on.set()

    settings = BLOCKS["ini"].replace("<API key id>", gateway.api_key_id).replace("<host>", "127.0.0.1")
    (folder / "session.ini").write_text(settings.replace("8228", str(gateway.port)))
    application = Listening(signer)
    parts = application, fix.MemoryStoreFactory(), fix.SessionSettings(str(folder / "session.ini"))
    made = fix.SocketInitiator(*parts)
    made.kept = parts  # QuickFIX holds no references to them
    return made


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_it_logs_on_and_on_again(
    enrolled: Callable[..., SandboxKey], store_uri: str, tmp_path: Path, key_type: KeyType
) -> None:
    registered, logged_on = enrolled(key_type), threading.Event()
    with open_store(store_uri) as store, FixGateway(registered.api_key_id, registered.public_key) as gateway:
        engine = initiator(store.key("prod").signer(), gateway, tmp_path, logged_on)
        engine.start()
        try:
            assert logged_on.wait(20), gateway.verdicts
            logged_on.clear()
            gateway.hang_up()
            assert logged_on.wait(20), gateway.verdicts
        finally:
            engine.stop(True)
    assert gateway.verdicts[:2] == ["good", "good"]


def test_another_key_is_refused(enrolled: Callable[..., SandboxKey], store_uri: str, tmp_path: Path) -> None:
    registered, logged_on = enrolled(), threading.Event()
    other = rsa.generate_private_key(65537, 2048).public_key()
    with open_store(store_uri) as store, FixGateway(registered.api_key_id, other) as gateway:
        engine = initiator(store.key("prod").signer(), gateway, tmp_path, logged_on)
        engine.start()
        try:
            assert gateway.judged.wait(20)
        finally:
            engine.stop(True)
    assert gateway.verdicts[0] == "signature"
    assert not logged_on.is_set()
