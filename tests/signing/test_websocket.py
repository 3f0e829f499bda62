"""The WebSocket handshake, signed in a token, again for each connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hsm_keys import KeyType, open_store
from hsm_keys.signing.environments import environment_name

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken


@pytest.mark.softhsm
@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_a_token_opens_a_websocket_and_opens_it_again(
    token: TestToken, sandbox: SandboxServer, key_type: KeyType
) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", key_type)
        registered = sandbox.add_key("prod", key.public_pem())
        signer = store.bind(key, registered.api_key_id, environment_name(sandbox.base_url)).signer()
        for number in (1, 2):
            with connect(sandbox.ws_url, additional_headers=signer.websocket_headers()) as socket:
                socket.send(json.dumps({"id": number, "cmd": "subscribe", "params": {"channels": ["ticker"]}}))
                assert json.loads(socket.recv(5))["type"] == "subscribed"
        sandbox.state.delete_key(registered.api_key_id)
        with pytest.raises(InvalidStatus, match="401"):
            connect(sandbox.ws_url, additional_headers=signer.websocket_headers())
    assert [seen.verified for seen in sandbox.requests] == [True, True, False]
