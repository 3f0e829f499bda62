"""RFC 7512 URIs, strictly."""

from __future__ import annotations

import contextlib
import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.stores.uri import LibraryVersion, Pkcs11Uri
from hsm_keys.values import Secret

CANARY = "pin-canary-31337"


def test_the_parts_of_a_uri() -> None:
    uri = Pkcs11Uri.parse(
        "pkcs11:token=My%20token;serial=4f1c;object=prod;type=private;id=%00%ff;slot-id=7;library-version=2.6"
        "?module-path=/usr/lib/libsofthsm2.so&pin-source=file:/run/pin"
    )
    assert uri.token == "My token"
    assert (uri.serial, uri.object, uri.type, uri.id) == ("4f1c", "prod", "private", b"\x00\xff")
    assert (uri.slot_id, uri.library_version) == (7, (2, 6))
    assert Pkcs11Uri.parse("pkcs11:library-version=2").library_version == (2, 0)
    assert uri.module_path == "/usr/lib/libsofthsm2.so"
    assert uri.pin_source == "file:/run/pin"


@pytest.mark.parametrize(
    "uri",
    [
        # examples of RFC 7512, section 3, that name no vendor's attributes
        "pkcs11:",
        "pkcs11:object=my-pubkey;type=public",
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=",
        "pkcs11:object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
        "pkcs11:slot-description=Sun%20Metaslot",
        "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23",
        "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
        "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
    ],
)
def test_the_examples_of_the_rfc_are_read_and_written(uri: str) -> None:
    assert Pkcs11Uri.parse(str(Pkcs11Uri.parse(uri))) == Pkcs11Uri.parse(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("token=x", "doesn't begin"),
        ("pkcs12:token=x", "doesn't begin"),
        (" pkcs11:token=x", "doesn't begin"),
        ("pkcs11:token=a;token=b", "token twice"),
        ("pkcs11:token=a?pin-value=1&pin-value=2", "pin-value twice"),
        ("pkcs11:token=a?pin-value=1&pin-source=file:/x", "both pin-source and pin-value"),
        ("pkcs11:token=a?module-name=a&module-path=/a", "both module-name and module-path"),
        ("pkcs11:token=a?module-path=lib/softhsm.so", "relative module-path"),
        ("pkcs11:token=a?module-path=", "relative module-path"),
        ("pkcs11:token=%", "percent-escape in token"),
        ("pkcs11:token=%2", "percent-escape in token"),
        ("pkcs11:token=%zz", "percent-escape in token"),
        ("pkcs11:token=%ff", "isn't UTF-8 in token"),
        ("pkcs11:token=a%00b", "NUL"),
        ("pkcs11:token=a%00%20%00b", "NUL"),
        ("pkcs11:object=a%00", "NUL"),
        ("pkcs11:token=a b", "bad character"),
        ("pkcs11:token=ä", "bad character"),
        ("pkcs11:token=a\n", "bad character"),
        ("pkcs11:toekn=a", "'toekn'"),
        ("pkcs11:Token=a", "no attribute"),
        ("pkcs11:slot_id=1", "no attribute"),
        ("pkcs11:x-vendor=a", "'x-vendor'"),
        ("pkcs11:module-path=/x", "'module-path'"),
        ("pkcs11:token=a?token=b", "'token'"),
        ("pkcs11:token", "no attribute"),
        ("pkcs11:;", "no attribute"),
        ("pkcs11:token=a;", "no attribute"),
        ("pkcs11:token=a?", "empty query"),
        ("pkcs11:slot-id=one", "slot-id"),
        ("pkcs11:slot-id=-1", "slot-id"),
        ("pkcs11:slot-id=18446744073709551616", "slot-id"),
        ("pkcs11:type=privat", "type"),
        ("pkcs11:library-version=two", "library-version"),
        ("pkcs11:library-version=%D9%A3", "library-version"),  # an Arabic three
        ("pkcs11:token=\ud800", "bad character"),
        ("pkcs11:token=a\0", "bad character"),
        ("pkcs11:token=a;;serial=b", "no attribute"),
        ("pkcs11:token=a?module-path=/x&", "no attribute"),
        ("pkcs11:token=" + "x" * 5000, "longer"),
    ],
)
def test_what_is_wrong_is_named(uri: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pkcs11Uri.parse(uri)
    assert said in caught.value.message


@pytest.mark.parametrize("padding", ["%00", "%00%00%00", "%20%00", "%00%20%00"])
def test_padding_with_nul_is_no_part_of_a_field(padding: str) -> None:
    assert Pkcs11Uri.parse(f"pkcs11:token=a%20b{padding};serial=1{padding}") == Pkcs11Uri(token="a b", serial="1")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ANY_BYTES = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b"").decode(errors="surrogateescape"))
URIS = st.builds(
    Pkcs11Uri,
    token=st.none() | TEXT,
    manufacturer=st.none() | TEXT,
    serial=st.none() | TEXT,
    model=st.none() | TEXT,
    library_manufacturer=st.none() | TEXT,
    library_description=st.none() | TEXT,
    library_version=st.none() | st.builds(LibraryVersion, st.integers(0, 255), st.integers(0, 255)),
    object=st.none() | TEXT | ANY_BYTES,
    type=st.none() | st.sampled_from(["public", "private", "cert", "secret-key", "data"]),
    id=st.none() | st.binary(max_size=20),
    slot_description=st.none() | TEXT,
    slot_manufacturer=st.none() | TEXT,
    slot_id=st.none() | st.integers(0, 2**64 - 1),
    pin_source=st.none() | TEXT | ANY_BYTES,
    module_path=st.none() | (TEXT | ANY_BYTES).map(lambda text: "/" + text),
)


@given(URIS.filter(lambda uri: len(str(uri)) <= 4096))
def test_what_is_written_reads_the_same(uri: Pkcs11Uri) -> None:
    assert Pkcs11Uri.parse(str(uri)) == uri


@given(st.text() | st.text().map(lambda text: "pkcs11:" + text))
def test_any_text_is_a_uri_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        Pkcs11Uri.parse(text)


def test_the_pin_is_there_for_who_asks_and_shown_to_nobody() -> None:
    uri = Pkcs11Uri.parse(f"pkcs11:token=x?pin-value={CANARY}&module-path=/m.so")
    assert uri.pin_value == Secret(CANARY)
    assert CANARY not in f"{uri} {uri!r} {[uri]}"


# Text in which what a URI is made of comes up often enough to matter.
PIECES = st.lists(st.sampled_from(["&", "=", ";", "?", "%", "/", "a", "pin-value", "token"]) | st.text(max_size=5)).map(
    "".join
)


@given(PIECES, PIECES, PIECES)
@example("", "x&", "=")  # a PIN with '&' and '=' that nobody encoded: its end is no attribute to be named
@example("", "x&", "=&y")
@example("", "x?", "=")
@example("module-path=/x&", "token=b&", "=")
def test_no_error_repeats_a_pin(before: str, within: str, after: str) -> None:
    for text in (
        f"pkcs11:token=a?{before}&pin-value={within}{CANARY}{after}",
        f"pkcs11:token=a?pin-value={within}{CANARY}{after}&{before}",
        f"pkcs11:{before};pin-value={CANARY}{after}",
        f"pkcs11:token=a?{before}={CANARY}",
    ):
        shown = ""
        try:
            Pkcs11Uri.parse(text)
        except UsageError as error:
            shown = "".join(traceback.format_exception(error)) + error.hint
        assert CANARY not in shown
