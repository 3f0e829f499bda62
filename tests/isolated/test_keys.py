"""An isolated store's keys are those of the store that its process has open, and prove that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsm_keys import open_store
from hsm_keys.errors import SigningError, StoreUnavailableError, UsageError
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.isolated.store import IsolatedKey
from hsm_keys.stores.isolated.wire import MAX_MESSAGE, Frame, FrameKind, pack
from tests.support.isolated import API_KEY_ID, in_child, served_by, signer_of
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.stores.isolated.store import IsolatedStore
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm


def test_it_signs_and_tells_what_the_store_itself_does(
    isolated: IsolatedStore, stocked: TestToken, tmp_path: Path
) -> None:
    with open_store(stocked.uri) as plain:
        assert isolated.describe() == plain.describe()
        assert isolated.uri == plain.uri
        assert [key.name for key in isolated.keys()] == ["ed", "prod"]
        for name in ("ed", "prod"):
            here, there = plain.key(name), isolated.key(name)
            assert (there.api_key_id, there.uri, there.key_type) == (here.api_key_id, here.uri, here.key_type)
            assert there.public_pem() == here.public_pem()
            assert there.attributes() == here.attributes()
            assert there.custody_facts() == here.custody_facts()
            for message in (b"0", b"POST/trade-api/v2/portfolio/events/orders", bytes(MAX_MESSAGE)):
                assert openssl_verifies(tmp_path, here.public_pem(), message, there.sign(message))


def test_signers_private_keys_and_rotations(isolated: IsolatedStore, stocked: TestToken) -> None:
    key = isolated.key("prod")
    signer = key.signer()
    assert signer.headers("GET", "/trade-api/v2/portfolio/balance")["KALSHI-ACCESS-KEY"] == API_KEY_ID
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"message")
    signature = key.private_key().sign(digest.finalize(), pss, Prehashed(hashes.SHA256()))  # type: ignore[call-arg]  # RSA
    key.public_key().verify(signature, b"message", pss, hashes.SHA256())  # type: ignore[call-arg]  # RSA
    successor_id = "11111111-2222-4333-8444-555555555555"
    with open_store(stocked.uri) as plain:
        successor = plain.bind(plain.generate("prod+next"), successor_id, "prod")
        RenamesKeys.of(plain).hand_over("prod", successor, plain.key("prod"), "+retired")
    assert signer.moved_on(API_KEY_ID)
    assert signer.headers("GET", "/trade-api/v2/portfolio/balance")["KALSHI-ACCESS-KEY"] == successor_id
    assert key.current().public_key() == successor.public_key()


def test_forked_children_share_the_signer(isolated: IsolatedStore, tmp_path: Path) -> None:
    key = isolated.key("prod")
    key.sign(b"parent")
    signer = signer_of(isolated)

    def sign() -> str:
        assert openssl_verifies(tmp_path, key.public_pem(), b"child", key.sign(b"child"))
        told = repr(served_by(isolated))
        isolated.close()  # leaves the signer to the parent
        return told

    assert [in_child(sign) for _ in range(3)] == [repr({signer.pid})] * 3
    assert len(key.sign(b"parent")) == 256
    assert signer.poll() is None


class Liar:
    """Stands for a store whose signer answers every request alike."""

    def __init__(self, *answers: Frame) -> None:
        self.answers = list(answers)

    def run(self, _work: object) -> tuple[int, Frame]:
        return 1, self.answers.pop(0)


def test_what_is_no_signature_of_the_key_is_not_passed_on(isolated: IsolatedStore) -> None:
    key = isolated.key("ed")
    right = Frame(FrameKind.SIGNATURE, 0, key.sign(b"x"))
    other = Frame(FrameKind.SIGNATURE, 0, key.sign(b"another message"))
    short, strange = Frame(FrameKind.SIGNATURE, 0, right.payload[:-1]), Frame(FrameKind.ANSWER, 0, b"{}")
    assert isinstance(key, IsolatedKey)
    key._store = Liar(short, strange, other, right)  # type: ignore[assignment]  # it stands for one
    with pytest.raises(SigningError, match="63 bytes instead of 64"):
        key.sign(b"x")
    with pytest.raises(StoreUnavailableError, match="kind ANSWER"):
        key.sign(b"x")
    with pytest.raises(SigningError, match="doesn't verify"):
        key.sign(b"x")
    assert key.sign(b"x") == right.payload


def test_several_messages_are_signed_with_one_answer(isolated: IsolatedStore, tmp_path: Path) -> None:
    key = isolated.key("ed")
    assert isinstance(key, IsolatedKey)
    messages = [b"%d" % number for number in range(8)]
    signatures = key.sign_all(messages)
    assert all(openssl_verifies(tmp_path, key.public_pem(), *pair) for pair in zip(messages, signatures, strict=True))
    assert key.sign_all([]) == []
    with pytest.raises(UsageError, match="at most 65536 bytes"):
        key.sign_all([bytes(8192)] * 8)
    short, fewer = pack([signatures[0], signatures[1][:-1]]), pack(signatures[:1])
    key._store = Liar(*(Frame(FrameKind.SIGNATURES, 0, payload) for payload in (short, fewer, b"\0\0\0\5x")))  # type: ignore[assignment]  # it stands for one
    with pytest.raises(SigningError, match="63 bytes instead of 64"):
        key.sign_all(messages[:2])
    with pytest.raises(SigningError, match="1 signatures instead of 2"):
        key.sign_all(messages[:2])
    with pytest.raises(StoreUnavailableError, match="unreadable answer"):
        key.sign_all(messages[:1])
