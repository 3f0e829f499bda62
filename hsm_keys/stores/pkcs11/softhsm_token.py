"""Makes a token in SoftHSM for ``init``; its user PIN is kept in a file of this user's, or typed each time.

If a run is killed anywhere, the next run continues: until the profile is written, ``making-LABEL.json`` in the folder
of the profiles has the security officer's PIN and the place of the user PIN. Afterwards the security officer's PIN is
kept nowhere, because whoever has it could set a new user PIN.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreError, UsageError
from hsm_keys.files import private_folder, sync_folder, write_whole
from hsm_keys.stores.new_store import NewStore
from hsm_keys.stores.pkcs11.new_token import TokenState, make_token, state_of_token
from hsm_keys.stores.pkcs11.softhsm_conf import own_configuration, tokens_folder, write_own_configuration
from hsm_keys.stores.uri import Pkcs11Uri
from hsm_keys.values import Secret, hides_its_arguments, shown_path

if TYPE_CHECKING:
    from hsm_keys.person import Person

__all__ = ["make_softhsm_token", "unfinished_label"]

_RANDOM_BYTES: Final = 16
_PREFIX: Final = "making-"


def unfinished_label(folder: Path) -> str | None:
    """Return the label of a token that an earlier run was making; None if there is none."""
    note = next(iter(sorted(folder.glob(f"{_PREFIX}*.json"))), None)
    return None if note is None else note.stem.removeprefix(_PREFIX)


def make_softhsm_token(module_path: str, label: str, folder: Path, pin_file: Path | None, person: Person) -> NewStore:
    """Make a token, if a person agrees; go on with one that an earlier run began.

    Its note, which has the security officer's PIN, is gone when it is finished.

    Args:
        module_path: SoftHSM.
        label: The token's label, which is also part of file names.
        folder: Where the file with a random PIN goes.
        pin_file: A file that holds the PIN to be; else the person chooses one, or it is random, in a file.
        person: Who is asked.

    Raises:
        UsageError: If the answer is no, or a file can't be written or read.
        PinError: If the PIN is one that the token doesn't take.
        StoreError: If SoftHSM refuses.
    """
    if "/" in label or label.startswith("."):
        raise UsageError("the label of a new token has to fit into a file's name", hint="use letters and digits")
    _configure(person)
    note = folder / f"{_PREFIX}{label}.json"
    last = _read(note)
    if last is None:
        person.agree(f"Make a token in SoftHSM ({module_path}), called {label}?")
    state = state_of_token(module_path, label)
    if last is not None and state is TokenState.READY:
        person.report(f"the token {label!r} is there: an earlier run made it")
        return _new_store(module_path, label, last.pin_file, None, note)
    if last is None and state is not TokenState.ABSENT:
        raise StoreError(
            f"there is a token {label!r} without a user PIN, and its security officer's PIN isn't known",
            hint="choose another label with --token",
        )
    pin, kept = _pin(label, folder, pin_file, last, person)
    if last is None or last.pin_file != kept:
        last = _Note(Secret(secrets.token_hex(_RANDOM_BYTES)) if last is None else last.so_pin, kept)
        _write_private(note, last.as_text())
    make_token(module_path, label, last.so_pin, pin)
    where = f"its user PIN is in {kept}, which you alone can read" if kept else "its user PIN is the one that you typed"
    person.report(f"made the token {label!r}; {where}")
    return _new_store(module_path, label, kept, None if kept else pin, note)


def _new_store(module_path: str, label: str, pin_file: Path | None, pin: Secret | None, note: Path) -> NewStore:
    uri = Pkcs11Uri(token=label, module_path=module_path)
    options = {"pin_file": str(pin_file)} if pin_file else {}
    return NewStore(str(uri), lambda: note.unlink(missing_ok=True), options, pin)


def _configure(person: Person) -> None:
    """Give this user a configuration of SoftHSM's, where the system's is for others."""
    if tokens_folder() is not None:
        return
    person.agree(f"SoftHSM isn't configured for this user. Write {own_configuration()}?")
    try:
        path = write_own_configuration()
    except OSError as error:
        raise UsageError(
            f"{shown_path(error.filename)} can't be written: {error.strerror}",
            hint="make room, or check its permissions",
        ) from None
    person.report(f"wrote {path}")


@dataclass(frozen=True, slots=True)
class _Note:
    """What the next run goes on by."""

    so_pin: Secret
    pin_file: Path | None

    def as_text(self) -> Secret:
        fields = {"so_pin": self.so_pin.reveal(), "pin_file": str(self.pin_file) if self.pin_file else None}
        return Secret(json.dumps(fields))


def _read(note: Path) -> _Note | None:
    try:
        fields = json.loads(note.read_text(encoding="utf-8"))
        return _Note(Secret(fields["so_pin"]), Path(fields["pin_file"]) if fields["pin_file"] else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{shown_path(note)} was changed since hsm-keys wrote it",
            hint="move it away, and run the same command again",
        ) from None


def _pin(
    label: str, folder: Path, pin_file: Path | None, last: _Note | None, person: Person
) -> tuple[Secret, Path | None]:
    """Return the user PIN to be, and the file that holds it."""
    if pin_file is not None:
        return _pin_in(pin_file), pin_file
    if last is not None and last.pin_file is not None:
        return _pin_in(last.pin_file), last.pin_file
    path = _free_name(folder / f"pin-{label}")
    chosen = person.new_pin(f"New user PIN of the token {label}, or nothing for a random one in {path}")
    if chosen:
        return chosen, None
    pin = Secret(secrets.token_hex(_RANDOM_BYTES // 2))
    _write_private(path, Secret(pin.reveal() + "\n"))
    return pin, path


def _pin_in(file: Path) -> Secret:
    from hsm_keys.stores.pins import PinWanted, resolve_pin

    pin = resolve_pin(PinWanted("the new token"), pin_file=file, uri=Pkcs11Uri(), ask=None, env={})
    if pin is None:
        raise UsageError(f"{shown_path(file)} holds no PIN", hint="write the PIN into it, or name another file")
    return pin


def _free_name(path: Path) -> Path:
    """Return a name that no file has: another token's PIN may be kept under the first one."""
    return path if not os.path.exists(path) else path.with_name(f"{path.name}-{secrets.token_hex(2)}")


@hides_its_arguments
def _write_private(path: Path, text: Secret) -> None:
    """Write a file that this user alone can read, in one step."""
    private_folder(path.parent)
    try:
        write_whole(path, text.reveal())
        sync_folder(path.parent)
    except OSError as error:
        raise UsageError(
            f"{shown_path(path)} can't be written: {error.strerror}", hint="set XDG_CONFIG_HOME to a folder of yours"
        ) from None
