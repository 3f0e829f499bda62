"""Where a PIN comes from, in which order, and where it never shows."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from hsm_keys.errors import HsmKeysError, PinMissingError, UsageError
from hsm_keys.stores.pins import Pin, PinWanted, resolve_pin, what_to_check
from hsm_keys.stores.uri import Pkcs11Uri
from hsm_keys.values import Secret

CANARY = "pin-canary-2718"


def file_with(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def resolved(
    uri: Pkcs11Uri | None = None,
    *,
    pin_file: Path | None = None,
    ask: str | None = None,
    env: dict[str, str] | None = None,
    takes_empty: bool = False,
) -> str:
    pin = resolve_pin(
        PinWanted('token "kalshi"', takes_empty=takes_empty),
        pin_file=pin_file,
        uri=uri or Pkcs11Uri(),
        ask=None if ask is None else lambda prompt: f"{ask} to {prompt}",
        env=env or {},
    )
    assert pin is not None
    return pin.reveal()


def test_the_order_of_the_sources(tmp_path: Path) -> None:
    by_option = file_with(tmp_path / "option", b"option\n")
    by_source = Pkcs11Uri(pin_source=f"file:{file_with(tmp_path / 'source', b'source')}")
    by_value = Pkcs11Uri(pin_value=Secret("value"))
    env = {"HSM_KEYS_PIN_FILE": str(file_with(tmp_path / "env", b"envfile\r\n")), "HSM_KEYS_PIN": "envpin"}
    assert resolved(by_source, pin_file=by_option, ask="x", env=env) == "option"
    assert resolved(by_source, ask="x", env=env) == "source"
    assert resolved(by_value, ask="x", env=env) == "value"
    assert resolved(ask="x", env=env) == "envfile"
    assert resolved(ask="x", env={"HSM_KEYS_PIN_FILE": "", "HSM_KEYS_PIN": "envpin"}) == "envpin"
    assert resolved(ask="answer", env={"HSM_KEYS_PIN": ""}) == 'answer to User PIN of token "kalshi"'
    with pytest.raises(PinMissingError) as caught:
        resolved()
    for way in ("--pin-file", "pin-source", "HSM_KEYS_PIN_FILE", "HSM_KEYS_PIN"):
        assert way in caught.value.hint


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "{}"])
def test_the_forms_of_a_pin_source(tmp_path: Path, form: str) -> None:
    path = file_with(tmp_path / "the%pin", CANARY.encode())
    source = form.format(path if form == "{}" else str(path).replace("%", "%25"))
    assert resolved(Pkcs11Uri(pin_source=source)) == CANARY


@pytest.mark.parametrize(
    "source",
    [
        "|cat /etc/passwd",
        "https://x/pin",
        "file:relative",
        "relative",
        "",
        "file:",
        "file://elsewhere/x",
        "file://[/x",
        "file:/etc/pin#of-the-old-token",  # cut off there, another file would be read
        "file:/etc/pin?x",
    ],
)
def test_a_pin_source_that_is_no_file_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="pin-source"):
        resolved(Pkcs11Uri(pin_source=source))


def test_a_path_that_no_file_can_have_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(PinMissingError, match="isn't a path"):
        resolved(Pkcs11Uri(pin_source=f"file:{tmp_path}/a%00b"))
    with pytest.raises(PinMissingError, match="isn't a path"):
        resolved(pin_file=tmp_path / "a\0b")


@pytest.mark.parametrize("pin", [f"{CANARY}\nsecond line", f"{CANARY}\n\n", f"a\r{CANARY}", f"{CANARY}\0"])
def test_what_is_not_one_line_never_costs_a_try(tmp_path: Path, pin: str) -> None:
    sources: list[dict[str, Any]] = [
        {"pin_file": file_with(tmp_path / "pin", pin.encode())},
        {"env": {"HSM_KEYS_PIN": pin}},
        {"env": {"HSM_KEYS_PIN": "\udcff" + CANARY}},  # how Python shows bytes of the environment that aren't UTF-8
    ]
    for source in sources:
        with pytest.raises(PinMissingError, match="isn't one line") as caught:
            resolved(**source)
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_an_empty_answer_is_no_pin() -> None:
    with pytest.raises(PinMissingError, match="answer to the prompt is empty"):
        resolve_pin(PinWanted("t"), pin_file=None, uri=Pkcs11Uri(), ask=lambda prompt: "", env={})


def test_a_pipe_is_read_once_and_serves_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(CANARY + "\n"))
    writer.start()
    assert [resolved(pin_file=pipe), resolved(pin_file=pipe)] == [CANARY, CANARY]
    writer.join(10)


def test_a_descriptor_is_read_once_and_serves_twice() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, CANARY.encode() + b"\n")
        os.close(writing)
        source = Path(f"/dev/fd/{reading}")
        assert [resolved(pin_file=source), resolved(env={"HSM_KEYS_PIN_FILE": str(source)})] == [CANARY, CANARY]
    finally:
        os.close(reading)


def test_a_relative_path_is_another_file_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file_with(tmp_path / name / "pin", name.encode())
        monkeypatch.chdir(tmp_path / name)
        assert resolved(pin_file=Path("pin")) == name


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 1025])
def test_a_file_without_a_pin_is_an_error_that_names_it_and_not_its_content(tmp_path: Path, content: bytes) -> None:
    path = file_with(tmp_path / "pin", content)
    with pytest.raises(PinMissingError, match="pin") as caught:
        resolved(pin_file=path, env={"HSM_KEYS_PIN": "never tried"})
    assert "xxx" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error_and_no_other_source_is_tried(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(PinMissingError, match="can't be read"):
            resolved(pin_file=path, env={"HSM_KEYS_PIN": "never tried"})


@pytest.mark.parametrize("pin", ["/s3cret", "/s3cret/", "./s3cret", "s3cret.pin", "~s3cret/x", "/s3/cret"])
def test_a_pin_in_the_place_of_its_file_is_not_taken_for_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pin: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for source, by in (
        ({"pin_file": Path(pin)}, "--pin-file"),
        ({"env": {"HSM_KEYS_PIN_FILE": pin}}, "HSM_KEYS_PIN_FILE"),
        ({"uri": Pkcs11Uri(pin_source=f"file:/{pin.lstrip('./~')}")}, "pin-source"),
    ):
        with pytest.raises(PinMissingError, match="can't be read") as caught:
            resolved(**source)
        assert "s3" not in str(caught.value)
        assert by in caught.value.message


def test_a_file_beside_which_something_is_is_named(tmp_path: Path) -> None:
    with pytest.raises(PinMissingError, match=str(tmp_path / "pim")):
        resolved(pin_file=tmp_path / "pim")


def test_a_pin_says_where_it_came_from(tmp_path: Path) -> None:
    path = file_with(tmp_path / "pin", CANARY.encode())
    sources: dict[str, dict[str, Any]] = {
        f"the PIN file {path} (--pin-file)": {"pin_file": path},
        f"the PIN file {path} (the URI's pin-source)": {"uri": Pkcs11Uri(pin_source=str(path))},
        f"the PIN file {path} (HSM_KEYS_PIN_FILE)": {"env": {"HSM_KEYS_PIN_FILE": str(path)}},
        "the URI's pin-value": {"uri": Pkcs11Uri(pin_value=Secret(CANARY))},
        "HSM_KEYS_PIN": {"env": {"HSM_KEYS_PIN": CANARY}},
        "the answer to the prompt": {"ask": lambda _: CANARY},
    }
    for source, given in sources.items():
        pin = resolve_pin(PinWanted("t"), **({"pin_file": None, "uri": Pkcs11Uri(), "ask": None, "env": {}} | given))
        assert pin is not None
        assert (pin.source, what_to_check(pin)) == (source, f"check the PIN: it came from {source}")
    assert "pad" in what_to_check(None)


def test_spaces_belong_to_the_pin(tmp_path: Path) -> None:
    assert resolved(pin_file=file_with(tmp_path / "pin", b" a b \n")) == " a b "


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_byte_order_mark_of_windows_editors_is_no_part_of_the_pin(tmp_path: Path, encoding: str, end: str) -> None:
    assert resolved(pin_file=file_with(tmp_path / "pin", f"pïn-4711{end}".encode(encoding))) == "pïn-4711"
    big_endian = "\ufeff" + CANARY + end
    assert resolved(pin_file=file_with(tmp_path / "big", big_endian.encode("utf-16-be"))) == CANARY


def test_a_file_that_others_can_read_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file_with(tmp_path / "pin", CANARY.encode())
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING, "hsm_keys"):
        resolved(pin_file=path)
    assert "chmod 600" in caplog.text
    assert CANARY not in caplog.text


def test_a_pin_shows_nothing_of_itself() -> None:
    pin = Pin(CANARY)
    assert pin.reveal() == CANARY
    assert CANARY not in f"{pin} {pin!r} {[pin]} {pin!s}"
    with pytest.raises(TypeError):
        f"{pin:>40}"
    assert not hasattr(pin, "__dict__")
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            leak(pin)
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_an_error_after_the_pin_was_read_does_not_hold_it(tmp_path: Path) -> None:
    path = file_with(tmp_path / "pin", CANARY.encode() + b"\xff")
    with pytest.raises(HsmKeysError) as caught:
        resolved(pin_file=path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
