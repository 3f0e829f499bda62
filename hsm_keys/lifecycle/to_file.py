"""A pair made by Kalshi, written to a PEM file, for programs that can't use a store. Such a key isn't in custody.

Before Kalshi is asked, a file ``PATH.generating-ENVIRONMENT`` is made. The private half is written to it, and when it
is complete, the file is renamed to ``PATH``. A run that finds such a file knows that the API key with this name belongs
to a file that nobody got, and deletes the API key. For another environment the file says nothing, and the run does
nothing.
"""

from __future__ import annotations

import glob
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_keys.errors import HsmKeysError, KalshiError, KeyBusyError, KeyExistsError, OutcomeUnknownError, UsageError
from hsm_keys.files import open_private, sync_folder, try_lock
from hsm_keys.inspecting.custody import CustodyReport, made_outside
from hsm_keys.inspecting.proof_of_possession import find_registration, prove_registration
from hsm_keys.lifecycle.enroll import Enrollment
from hsm_keys.lifecycle.made_by_kalshi import KALSHI, KalshiGenerator, called
from hsm_keys.signing.environments import check_environment, is_environment
from hsm_keys.signing.pem import PemKey, load_private_key
from hsm_keys.stores.base import StoredKey
from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict
from hsm_keys.stores.key_names import check_new_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.signing.algorithms import PublicKey

__all__ = ["PemFileKey", "generate_to_file"]


class PemFileKey(StoredKey):
    """A key whose private half is in a file: in nobody's custody.

    Args:
        name: The API key's name.
        path: The file.
        pem: What is in it.
        api_key_id: The id that Kalshi knows it by; None while that isn't known.
        environment: The environment of Kalshi that made it.
    """

    def __init__(self, name: str, path: Path, pem: bytes, api_key_id: str | None, environment: str) -> None:
        self.name = name
        self.ours, self.environment = True, environment
        self.api_key_id = api_key_id
        self.uri = path.as_uri()
        self._pem_key = PemKey(api_key_id or name, pem)
        self._public_key = load_private_key(pem).public_key()

    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self._public_key

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return nothing: a file knows nothing of its key."""
        return {}

    def custody_facts(self) -> list[CustodyFact]:
        """Return that the private half can be read."""
        return [
            made_outside(KALSHI),
            CustodyFact(
                "private_half_readable",
                value=True,
                verdict=CustodyVerdict.BAD,
                note="whoever reads the file has the key",
            ),
        ]

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made in memory."""
        return self._pem_key.sign(message)


def generate_to_file(path: str, kalshi: KalshiGenerator) -> Enrollment:
    """Have a pair made, and write its private half to a new file (0600), or finish what an interrupted run left.

    Args:
        path: The file; it must not exist.
        kalshi: Has the pair made by Kalshi.

    Raises:
        UsageError: If the file exists, or can't be made; nothing was done.
        WrongEnvironmentError: If an interrupted run had the file's key made in another environment; nothing was done.
        KeyExistsError: If Kalshi has an API key of the name already; nothing was done.
        KeyBusyError: If another run writes the same file.
        KalshiError: If Kalshi refuses; nothing is left behind.
        OutcomeUnknownError: If it isn't known whether Kalshi made a pair; the next run finds out.
    """
    name, target = check_new_name(kalshi.name), Path(path).absolute()
    part = _part_of(target, kalshi.account.environment)
    interrupted = os.path.exists(part)
    if os.path.lexists(target) and not interrupted:
        raise UsageError(f"{target} exists already; nothing was done", hint="name a file that doesn't exist yet")
    kalshi.report(
        f"WARNING: the private half goes into {target}: whoever reads that file, or a backup of it, has the key. "
        "Without --to-file it goes straight into a store; `hsm-keys enroll` makes it there"
    )
    listed = kalshi.listed()
    namesakes = called(name, listed)
    if namesakes and not interrupted:
        raise KeyExistsError(
            f"Kalshi has an API key called {name!r} already: {_ids(namesakes)}; nothing was changed",
            hint="somebody may use it: choose another name, or delete it on Kalshi's account page first",
        )
    kalshi.tell_rights()
    with _held(part, name) as descriptor:
        if os.path.lexists(target):
            key = _delivered(name, target, part, namesakes, kalshi)
        else:
            kalshi.delete_lost(namesakes)
            key = _made(target, part, descriptor, kalshi, listed)
    prove_registration(kalshi.account.connect, key, str(key.api_key_id))
    kalshi.report("proved it: Kalshi answered a request signed with it")
    return Enrollment(key, CustodyReport(tuple(key.custody_facts())), key.api_key_id)


def _part_of(target: Path, environment: str) -> Path:
    """Return the unfinished file; one of another environment is in the way.

    Raises:
        WrongEnvironmentError: If there is such a one.
    """
    stem = f"{target.name}.generating-"
    for other in target.parent.glob(f"{glob.escape(stem)}*"):
        mentioned = other.name.removeprefix(stem)
        if is_environment(mentioned):
            check_environment(str(target), mentioned, environment)
    return target.with_name(stem + environment)


def _ids(api_keys: Sequence[ApiKey]) -> str:
    return ", ".join(api_key.api_key_id for api_key in api_keys)


@contextmanager
def _held(part: Path, name: str) -> Iterator[int]:
    """Open the unfinished file, made now or by an interrupted run, and keep other runs away from it."""
    try:
        descriptor = open_private(part)
    except OSError as error:
        raise UsageError(
            f"{part} can't be made: {error.strerror}; nothing was done", hint="name a file in a folder that you own"
        ) from None
    try:
        if not try_lock(descriptor):
            raise KeyBusyError(
                f"another hsm-keys is generating {name!r} into that file at this moment",
                hint="wait until it has ended, then look at the file",
            )
        if os.fstat(descriptor).st_uid != os.getuid():
            raise UsageError(
                f"{part} belongs to another user; nothing was done", hint="name a file in a folder that you own"
            )
        os.fchmod(descriptor, 0o600)
        sync_folder(part.parent)
        yield descriptor
    finally:
        os.close(descriptor)


def _delivered(name: str, target: Path, part: Path, namesakes: Sequence[ApiKey], kalshi: KalshiGenerator) -> PemFileKey:
    """Return the key of a file that was whole before the run was interrupted."""
    if not target.samefile(part):
        raise UsageError(
            f"{target} exists already, and isn't the file of the interrupted run",
            hint="move it away, and run the same command again",
        )
    pem = target.read_bytes()
    api_key_id = find_registration(
        kalshi.account.connect, PemFileKey(name, target, pem, None, kalshi.account.environment), namesakes
    )
    if api_key_id is None:
        raise KalshiError(
            f"Kalshi accepts the signature of the key in {target} for none of its API keys; nothing was done",
            hint="the API key may not be known everywhere yet: run the same command again; if you know that it was "
            "deleted, remove the file first",
        )
    kalshi.check_asked(api_key_id, namesakes)
    kalshi.report(f"picked up {target}, which an interrupted run wrote")
    part.unlink()
    return PemFileKey(name, target, pem, api_key_id, kalshi.account.environment)


def _made(target: Path, part: Path, descriptor: int, kalshi: KalshiGenerator, listed: Sequence[ApiKey]) -> PemFileKey:
    """Have the pair made and its private half written; whatever fails after that deletes the API key again."""
    try:
        pair = kalshi.make(listed)
    except OutcomeUnknownError:
        raise  # the unfinished file stays: it tells the next run what to delete
    except HsmKeysError:
        with suppress(HsmKeysError, OSError):
            if not called(kalshi.name, kalshi.listed()):
                part.unlink()
        raise
    pem = pair.pem.encode()
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, pem, 0)
        os.fsync(descriptor)
        os.link(part, target)  # never over an existing file
        sync_folder(target.parent)
    except OSError as error:
        os.ftruncate(descriptor, 0)
        kalshi.delete(pair.api_key_id)
        part.unlink(missing_ok=True)
        raise UsageError(
            f"{target} can't be written: {error.strerror}; the API key {pair.api_key_id} that Kalshi made was deleted",
            hint="name a file that doesn't exist yet, in a folder that you own",
        ) from None
    part.unlink()
    kalshi.report(f"wrote the private half to {target} (0600)")
    return PemFileKey(kalshi.name, target, pem, pair.api_key_id, kalshi.account.environment)
