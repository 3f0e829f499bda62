"""The four key endpoints against Kalshi's OpenAPI document: shapes, statuses, and what is refused."""

from __future__ import annotations

import re
import subprocess
from base64 import encodebytes
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.sandbox import SandboxServer
from hsm_keys.sandbox.keys import parse_public_key
from tests.sandbox.client import API_KEYS, BALANCE, Caller, PrivateKey, Reply, load, pem_of, rsa_key, send

GENERATE = f"{API_KEYS}/generate"
ED25519 = Ed25519PrivateKey.generate()
ED25519_PEM = pem_of(ED25519)


def pem_of_modulus(bits: int) -> str:
    """The PEM of an RSA public key whose private half nobody has: the size is all that matters."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << bits) - 1)
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{encodebytes(der).decode()}-----END {label}-----\n"


def assert_bad(reply: Reply) -> None:
    """A 400 in the flat shape."""
    assert reply.status == 400, reply
    assert set(reply.json) == {"code", "message"}
    assert all(isinstance(value, str) and value for value in reply.json.values())


# --- list


def test_list_has_the_documented_fields_and_no_others(boss: Caller) -> None:
    server = boss.server
    seven = server.add_key("seven", ED25519_PEM, scopes=["read"], subaccount=7)
    bound = server.add_key("bound", ED25519_PEM, fcm_subtrader_id="me_x1")
    reply = boss.call("GET", API_KEYS)
    assert reply.status == 200
    assert reply.json == {
        "api_keys": [
            {"api_key_id": boss.api_key_id, "name": "bootstrap", "scopes": ["read", "write"]},
            {"api_key_id": seven.api_key_id, "name": "seven", "scopes": ["read"], "subaccount": 7},
            {
                "api_key_id": bound.api_key_id,
                "name": "bound",
                "scopes": ["read", "write"],
                "fcm_subtrader_id": "me_x1",
            },
        ]
    }


def test_list_can_be_narrowed_to_a_subtrader(boss: Caller) -> None:
    boss.server.add_key("bound", ED25519_PEM, fcm_subtrader_id="me_x1")
    listed = boss.call("GET", f"{API_KEYS}?fcm_subtrader_id=me_x1").json["api_keys"]
    assert [key["name"] for key in listed] == ["bound"]
    assert boss.call("GET", f"{API_KEYS}?fcm_subtrader_id=nobody").json == {"api_keys": []}


def test_null_lists_are_sent_when_switched_on() -> None:
    with SandboxServer(key_type="ed25519", null_lists=True) as server:
        boss = Caller.bootstrap(server)
        created = boss.call("POST", API_KEYS, {"name": "n", "public_key": ED25519_PEM}).json
        assert created == {"api_key_id": created["api_key_id"], "warning": None}
        assert boss.call("POST", GENERATE, {"name": "g", "key_type": "ed25519"}).json["warning"] is None
        answer = boss.call("GET", API_KEYS).json
        assert answer["api_key_region_expiration_ts"] is None
        assert [key["scopes"] for key in answer["api_keys"]] == [["read", "write"], None, None]
        assert {key["subaccount"] for key in answer["api_keys"]} == {None}
        assert {key["fcm_subtrader_id"] for key in answer["api_keys"]} == {None}
        assert boss.call("GET", f"{API_KEYS}?fcm_subtrader_id=nobody").json["api_keys"] is None
        assert Caller(server, created["api_key_id"], ED25519).call("GET", BALANCE).status == 200


# --- create


@pytest.mark.parametrize("private", [ED25519, rsa_key()], ids=["ed25519", "rsa"])
def test_create_registers_a_key_that_works(boss: Caller, private: PrivateKey) -> None:
    body = {"name": "bot", "public_key": pem_of(private), "scopes": ["read", "write::trade"], "subaccount": 5}
    reply = boss.call("POST", API_KEYS, body)
    assert reply.status == 201
    assert set(reply.json) == {"api_key_id"}
    assert str(UUID(reply.json["api_key_id"])) == reply.json["api_key_id"]
    kept = boss.server.state.keys[reply.json["api_key_id"]]
    assert (kept.name, kept.scopes, kept.subaccount, kept.fcm_subtrader_id) == (
        "bot",
        ("read", "write::trade"),
        5,
        None,
    )
    assert kept.public_pem == pem_of(private)
    assert Caller(boss.server, kept.api_key_id, private).call("GET", BALANCE).status == 200


def test_create_grants_read_and_write_when_scopes_are_left_out(boss: Caller) -> None:
    api_key_id = boss.call("POST", API_KEYS, {"name": "n", "public_key": ED25519_PEM}).json["api_key_id"]
    assert boss.server.state.keys[api_key_id].scopes == ("read", "write")


def test_the_same_name_and_the_same_public_key_are_taken_twice(boss: Caller) -> None:
    body = {"name": "twin", "public_key": ED25519_PEM}
    ids = {boss.call("POST", API_KEYS, body).json["api_key_id"] for _ in range(2)}
    assert len(ids) == 2
    assert {key.api_key_id for key in boss.server.state.keys.values() if key.name == "twin"} == ids


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_sizes_that_are_taken(boss: Caller, bits: int) -> None:
    assert boss.call("POST", API_KEYS, {"name": "n", "public_key": pem_of_modulus(bits)}).status == 201


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_endings_and_space_around_the_pem_do_not_matter(boss: Caller, ending: str) -> None:
    text = "\n  " + ED25519_PEM.replace("\n", ending) + ending
    assert boss.call("POST", API_KEYS, {"name": "n", "public_key": text}).status == 201


def rsa_pss_pem() -> str:
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
        capture_output=True,
        check=True,
    )
    return subprocess.run(
        ["openssl", "pkey", "-pubout"], input=made.stdout, capture_output=True, check=True
    ).stdout.decode()


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, ED25519.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(ED25519, None).public_bytes(Encoding.PEM).decode()


def private_pem(encoding: PrivateFormat, key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, encoding, NoEncryption()).decode()


def other_spki(key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey | x25519.X25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


SPKI_DER = ED25519.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PKCS1_DER = rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)

NOT_PUBLIC_KEYS = {
    "empty": "",
    "garbage": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
    "no base64": pem("PUBLIC KEY", SPKI_DER).replace("M", "!", 1),
    "no DER": pem("PUBLIC KEY", b"hello"),
    "empty block": "-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----\n",
    "PKCS#1": pem("RSA PUBLIC KEY", PKCS1_DER),
    "PKCS#1 under the wrong label": pem("PUBLIC KEY", PKCS1_DER),
    "SPKI under the wrong label": pem("RSA PUBLIC KEY", SPKI_DER),
    "certificate": certificate(),
    "two keys": ED25519_PEM + ED25519_PEM,
    "text before": "comment\n" + ED25519_PEM,
    "text behind": ED25519_PEM + "comment\n",
    "header within": ED25519_PEM.replace("-\n", "-\nComment: x\n\n", 1),
    "DER in base64": ED25519_PEM.splitlines()[1],
    "one line": ED25519_PEM.replace("\n", ""),
    "trailing byte": pem("PUBLIC KEY", SPKI_DER + b"\0"),
    "private PKCS#8": private_pem(PrivateFormat.PKCS8, ED25519),
    "private PKCS#1": private_pem(PrivateFormat.TraditionalOpenSSL, rsa_key()),
    "private, with the public one": ED25519_PEM + private_pem(PrivateFormat.PKCS8, ED25519),
    "EC": other_spki(ec.generate_private_key(ec.SECP256R1())),
    "Ed448": other_spki(ed448.Ed448PrivateKey.generate()),
    "X25519": other_spki(x25519.X25519PrivateKey.generate()),
    "RSA-1024": pem_of_modulus(1024),
    "RSA-2047": pem_of_modulus(2047),
    "RSA-8192": pem_of_modulus(8192),
    "RSASSA-PSS": rsa_pss_pem(),
}


@pytest.mark.parametrize("text", NOT_PUBLIC_KEYS.values(), ids=NOT_PUBLIC_KEYS.keys())
def test_what_is_no_public_key_is_refused_and_not_repeated(boss: Caller, text: str) -> None:
    reply = boss.call("POST", API_KEYS, {"name": "n", "public_key": text})
    assert_bad(reply)
    for line in text.splitlines():
        assert line.startswith("-----") or not line or line not in reply.body.decode()
    assert len(boss.server.state.keys) == 1


# --- create and generate

BAD_FIELDS: dict[str, Any] = {
    "name null": {"name": None},
    "name number": {"name": 7},
    "name empty": {"name": ""},
    "scopes null": {"scopes": None},
    "scopes empty": {"scopes": []},
    "scopes string": {"scopes": "read"},
    "scopes unknown": {"scopes": ["read", "admin"]},
    "scopes upper case": {"scopes": ["READ"]},
    "scopes number": {"scopes": [1]},
    "scopes nested": {"scopes": [["read"]]},
    "write without read": {"scopes": ["write"]},
    "write without the whole read": {"scopes": ["write", "read::portfolio_balance"]},
    "subaccount null": {"subaccount": None},
    "subaccount negative": {"subaccount": -1},
    "subaccount 64": {"subaccount": 64},
    "subaccount string": {"subaccount": "1"},
    "subaccount float": {"subaccount": 1.0},
    "subaccount bool": {"subaccount": True},
    "subtrader null": {"fcm_subtrader_id": None},
    "subtrader number": {"fcm_subtrader_id": 1},
    "subaccount and subtrader": {"subaccount": 1, "fcm_subtrader_id": "me_x1"},
}


@pytest.mark.parametrize("target", [API_KEYS, GENERATE])
@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_bad_fields_are_refused(boss: Caller, target: str, fields: dict[str, Any]) -> None:
    assert_bad(boss.call("POST", target, {"name": "n", "public_key": ED25519_PEM, "key_type": "ed25519"} | fields))
    assert len(boss.server.state.keys) == 1


@pytest.mark.parametrize("missing", ["name", "public_key"])
def test_required_fields(boss: Caller, missing: str) -> None:
    body = {"name": "n", "public_key": ED25519_PEM}
    del body[missing]
    assert_bad(boss.call("POST", API_KEYS, body))
    assert_bad(boss.call("POST", API_KEYS, body | {missing: 5}))


@pytest.mark.parametrize("target", [API_KEYS, GENERATE])
def test_a_subtrader_needs_an_fcm_member(boss: Caller, target: str) -> None:
    reply = boss.call("POST", target, {"name": "n", "public_key": ED25519_PEM, "fcm_subtrader_id": "me_x1"})
    assert (reply.status, reply.error["code"]) == (403, "forbidden")
    assert len(boss.server.state.keys) == 1


@pytest.mark.parametrize("scopes", [["read"], ["write", "read"], ["write::trade"], ["read", "read"]])
def test_scopes_that_are_taken(boss: Caller, scopes: list[str]) -> None:
    reply = boss.call("POST", API_KEYS, {"name": "n", "public_key": ED25519_PEM, "scopes": scopes})
    assert boss.server.state.keys[reply.json["api_key_id"]].scopes == tuple(dict.fromkeys(scopes))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"text"', b"null", b'{"name": NaN}', b'\xff{"name": "n"}', b"[" * 100_000, b"1" * 5000]
)
def test_a_body_that_is_no_json_object_is_refused_in_the_third_shape(boss: Caller, body: bytes) -> None:
    reply = boss.call("POST", API_KEYS, body)
    assert reply.status == 400
    assert set(reply.json) == {"msg"}


def test_the_content_type_must_be_json(boss: Caller) -> None:
    headers = boss.headers("POST", API_KEYS)
    for content_type in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        reply = send(boss.server, "POST", API_KEYS, headers | content_type, b"{}")
        assert (reply.status, reply.json["code"]) == (400, "invalid_content_type")
    utf8 = {"Content-Type": "application/json; charset=utf-8"}
    assert send(boss.server, "POST", API_KEYS, headers | utf8, b"{}").json["code"] == "invalid_parameters"


def test_a_body_over_a_mebibyte_is_refused(boss: Caller) -> None:
    assert boss.call("POST", API_KEYS, {"name": "n" * 2**20}).status == 413


# --- generate


@pytest.mark.parametrize(
    ("asked", "key_type", "label"),
    [
        ({}, "rsa", "RSA PRIVATE KEY"),
        ({"key_type": "rsa"}, "rsa", "RSA PRIVATE KEY"),
        ({"key_type": "ed25519"}, "ed25519", "PRIVATE KEY"),
    ],
)
def test_generate_hands_the_private_key_out_once(
    boss: Caller, asked: dict[str, str], key_type: str, label: str
) -> None:
    reply = boss.call("POST", GENERATE, {"name": "minted", **asked})
    assert reply.status == 201
    assert set(reply.json) == {"api_key_id", "key_type", "private_key"}
    assert reply.json["key_type"] == key_type
    handed_out = reply.json["private_key"]
    assert handed_out.startswith(f"-----BEGIN {label}-----\n")
    assert handed_out.endswith(f"-----END {label}-----\n")
    private = load(handed_out)
    assert not isinstance(private, rsa.RSAPrivateKey) or private.key_size == 2048
    kept = boss.server.state.keys[reply.json["api_key_id"]]
    assert (kept.name, kept.key_type, kept.scopes) == ("minted", key_type, ("read", "write"))
    assert kept.public_pem == pem_of(private)
    assert Caller(boss.server, kept.api_key_id, private).call("GET", BALANCE).status == 200
    assert handed_out not in boss.call("GET", API_KEYS).body.decode()


@pytest.mark.parametrize("key_type", ["RSA", "ecdsa", "", None, 1, []])
def test_generate_knows_two_key_types(boss: Caller, key_type: object) -> None:
    assert_bad(boss.call("POST", GENERATE, {"name": "n", "key_type": key_type}))


def test_generate_keeps_restrictions(boss: Caller) -> None:
    body = {"name": "n", "key_type": "ed25519", "scopes": ["read"], "subaccount": 63}
    api_key_id = boss.call("POST", GENERATE, body).json["api_key_id"]
    kept = boss.server.state.keys[api_key_id]
    assert (kept.scopes, kept.subaccount) == (("read",), 63)


# --- delete


def test_delete_is_empty_and_final(boss: Caller) -> None:
    doomed = Caller.added(boss.server)
    reply = boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id}")
    assert (reply.status, reply.body) == (204, b"")
    assert doomed.api_key_id not in boss.server.state.keys
    assert doomed.call("GET", BALANCE).error["details"] == "NOT_FOUND"
    again = boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id}")
    assert (again.status, again.json["code"]) == (404, "not_found")


def test_delete_takes_an_escaped_id(boss: Caller) -> None:
    doomed = Caller.added(boss.server)
    assert boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id.replace('-', '%2D')}").status == 204
    assert doomed.api_key_id not in boss.server.state.keys


@pytest.mark.parametrize("api_key_id", ["old-key-id", "%00", "1"])
def test_delete_of_what_is_no_id(boss: Caller, api_key_id: str) -> None:
    assert_bad(boss.call("DELETE", f"{API_KEYS}/{api_key_id}"))


def test_a_key_may_delete_itself(boss: Caller) -> None:
    assert boss.call("DELETE", f"{API_KEYS}/{boss.api_key_id}").status == 204
    assert boss.call("GET", API_KEYS).status == 401


# --- routing


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PUT", API_KEYS, "GET,POST"),
        ("HEAD", API_KEYS, "GET,POST"),
        ("GET", GENERATE, "POST"),
        ("OPTIONS", GENERATE, "POST"),
        ("DELETE", GENERATE, "POST"),
        ("POST", BALANCE, "GET"),
        ("GET", f"{API_KEYS}/x", "DELETE"),
    ],
)
def test_other_methods_are_405(boss: Caller, method: str, target: str, allow: str) -> None:
    reply = boss.call(method, target)
    assert (reply.status, reply.headers["Allow"]) == (405, allow)


@pytest.mark.parametrize("target", ["/", "/api_keys", "/trade-api/v1/api_keys", f"{API_KEYS}/a/b", f"{API_KEYS}/"])
def test_other_paths_are_404(boss: Caller, target: str) -> None:
    reply = boss.call("GET", target)
    assert (reply.status, set(reply.json)) == (404, {"code", "message"})


# --- the reader of public keys


@given(st.text() | st.text("-BEGINPUBLCKY \nMCowAZ+/=", max_size=200))
def test_no_text_gets_more_than_a_valueerror_from_the_reader(text: str) -> None:
    with pytest.raises(ValueError, match="public_key"):
        parse_public_key(text)


@given(st.binary(min_size=32, max_size=32))
def test_every_ed25519_key_goes_round(seed: bytes) -> None:
    text = pem_of(Ed25519PrivateKey.from_private_bytes(seed))
    key = parse_public_key(text)
    assert key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() == text


def test_the_bootstrap_pem_is_as_generate_gives_it(server: SandboxServer) -> None:
    assert re.fullmatch(r"-----BEGIN PRIVATE KEY-----\n[^-]+\n-----END PRIVATE KEY-----\n", server.bootstrap_pem)
