"""The shared object of a PKCS#11 module: found, loaded, initialised with locking.

python-pkcs11 calls ``C_Initialize(NULL)``, which promises that the program has no threads (PKCS#11 v2.40,
section 5.4); SoftHSM then switches its mutexes off, while python-pkcs11 releases the GIL in every call. Two
threads crash the process. So the module is initialised here with ``CKF_OS_LOCKING_OK`` instead.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import _pkcs11
from pkcs11.exceptions import PKCS11Error

from hsm_keys.errors import StoreError, StoreNotFoundError, StoreUnavailableError
from hsm_keys.forks import fork_generation
from hsm_keys.stores.pkcs11.codes import CKR_OK, exception_of
from hsm_keys.stores.pkcs11.cryptoki import Functions, functions_of
from hsm_keys.stores.pkcs11.errors import reason
from hsm_keys.stores.pkcs11.slots import only_slots
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Library", "find_module", "load_library", "renewed"]

_CKR_ARGUMENTS_BAD: Final = 0x007
_CKR_NEED_TO_CREATE_THREADS: Final = 0x009
_CKR_CANT_LOCK: Final = 0x00A
_CKR_CRYPTOKI_ALREADY_INITIALIZED: Final = 0x191

_USUAL_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def find_module(path: str | None) -> str:
    """Return the absolute path of the module to load.

    Args:
        path: As given by URI, option or ``HSM_KEYS_MODULE``; None looks where SoftHSM usually is.

    Raises:
        StoreNotFoundError: If there is no such file.
    """
    if path is None:
        path = next((usual for usual in _USUAL_MODULES if os.path.isfile(usual)), None)
        if path is None:
            raise StoreNotFoundError(
                "no PKCS#11 module was named, and SoftHSM is in none of its usual places",
                hint="give --module PATH, set HSM_KEYS_MODULE, or add module-path to the URI",
            )
    if not os.path.isfile(path):
        raise StoreNotFoundError(
            f"there is no PKCS#11 module at {shown_path(path)}",
            hint="give the path of the vendor's shared object, such as /usr/lib/softhsm/libsofthsm2.so",
        )
    # Not resolved: a distribution's link outlives the versioned file that it points to today.
    return str(Path(path).absolute())


class Library(_pkcs11.lib):
    """python-pkcs11's library object, initialised with operating system locking where that is possible.

    Attributes:
        functions: The module's functions.
        owned: Whether it was initialised here, and is to be finalised here; False where other code of this process
            was first.
        locking: Whether the module knows that this process has threads.
    """

    functions: Functions
    owned: bool = False
    locking: bool = False
    _generation: int = 0

    def __init__(self, file: str) -> None:
        try:
            super().__init__(file)
        except PKCS11Error:
            self.finalize()  # it may have initialised, but its information can't be read
            raise

    def initialize(self) -> None:
        """Call C_Initialize; python-pkcs11 calls this from its constructor.

        Raises:
            PKCS11Error: If the module refuses.
        """
        self.functions = functions_of(self)
        result = self.functions.initialize(locking=True)
        self.locking = result == CKR_OK
        if result in {_CKR_ARGUMENTS_BAD, _CKR_CANT_LOCK, _CKR_NEED_TO_CREATE_THREADS}:
            result = self.functions.initialize(locking=False)
        self.owned = result == CKR_OK
        self._generation = fork_generation()
        # If other code of this process owns the module, it is usable, but nobody knows with which locking.
        if result not in {CKR_OK, _CKR_CRYPTOKI_ALREADY_INITIALIZED}:
            raise exception_of(result)

    def finalize(self) -> None:
        """Call C_Finalize, if this object initialised the module."""
        if self.owned:
            self.owned = self.locking = False
            self.functions.finalize()

    def renew(self) -> None:
        """Initialise a module that nobody uses here any more: its tokens may have changed.

        Other code of this process may have sessions of its own, which C_Finalize would end; then it stays as it is.
        In a forked child there is nobody: sessions of the parent are worth nothing.

        Raises:
            PKCS11Error: If the module refuses.
        """
        if self.owned and self._generation == fork_generation() and self.is_used_by_others():
            return
        self.finalize()
        self.initialize()

    def end(self) -> None:
        """Finalise a module that this process initialised, if other code of it has no sessions."""
        if self.owned and self._generation == fork_generation() and not self.is_used_by_others():
            self.finalize()

    def is_used_by_others(self) -> bool:
        """Tell whether sessions are open while none of this package's is.

        Modules count them, or don't say; there a login that still holds shows that somebody has a session.
        """
        with suppress(PKCS11Error):
            return any(_has_sessions(self.functions, slot) for slot in self.functions.slots())
        return False

    def slots(self) -> list[Any]:
        """Return the slots that hold a token, without those whose information can't be had.

        Raises:
            PKCS11Error: If none can be had.
        """
        try:
            return list(self.get_slots(token_present=True))
        except PKCS11Error:
            good = [slot for slot in self.functions.slots() if self.functions.tells_of(slot)]
            if not good:
                raise
        with only_slots(self, good):
            return list(self.get_slots(token_present=True))


def _has_sessions(functions: Functions, slot: int) -> bool:
    with suppress(PKCS11Error):
        if functions.token_info(slot).sessions:
            return True
        session = functions.open_session(slot)
        try:
            return functions.is_logged_in(session)
        finally:
            functions.close_session(session)
    return False


def load_library(file: str, path: str) -> Library:
    """Load a module and initialise it; it stays loaded until the process ends.

    Args:
        file: The shared object, links resolved.
        path: What people call it.

    Raises:
        StoreError: If it isn't a PKCS#11 module.
        StoreUnavailableError: If it doesn't initialise.
    """
    _check_is_module(file, path)
    with _initialising(path), _in_utf_8(file) as loadable:
        library = Library(loadable)
    # Sessions point into it. When Python ends it would be unloaded, with threads of the module inside.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    return library


@contextmanager
def _in_utf_8(file: str) -> Iterator[str]:
    """Give a path of a file that python-pkcs11 can pass on; the dynamic linker knows a file by any of its paths."""
    try:
        file.encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder, "module.so")
            link.symlink_to(file)
            yield str(link)
    else:
        yield file


def renewed(library: Library, path: str) -> Library:
    """Return a library that was loaded before, and is used again; see ``Library.renew``.

    Raises:
        StoreUnavailableError: If it doesn't initialise.
    """
    with _initialising(path):
        library.renew()
    return library


@contextmanager
def _initialising(path: str) -> Iterator[None]:
    try:
        yield
    except PKCS11Error as error:
        raise StoreUnavailableError(
            f"the PKCS#11 module {path} didn't initialise: {reason(error)}",
            hint="check the module's own configuration (SOFTHSM2_CONF, its daemon, its permissions)",
        ) from None


def _check_is_module(file: str, path: str) -> None:
    try:
        ctypes.CDLL(file).C_GetFunctionList  # noqa: B018 - whether it is there
    except OSError as error:
        raise StoreError(f"{path} can't be loaded as a PKCS#11 module: {error}", hint=_why(file, str(error))) from None
    except AttributeError:
        raise StoreError(
            f"{path} is a shared library, but no PKCS#11 module: it has no C_GetFunctionList",
            hint="give the vendor's PKCS#11 shared object; its manual names it",
        ) from None


def _why(file: str, answer: str) -> str:
    """Return what to do about the dynamic linker's refusal of a file that is there."""
    if "Permission denied" in answer:
        return "this user must be able to read it"
    if "undefined symbol" in answer or ("cannot open shared object file" in answer and not answer.startswith(file)):
        return f"it needs another library, which is missing or too old: see `ldd {file}`"
    return "give the vendor's PKCS#11 shared object (a .so or .dylib file), made for this machine's processor"
