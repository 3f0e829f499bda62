"""PKCS#11 modules: load once a process, with locking, and finalise when the last user is gone.

python-pkcs11 calls ``C_Initialize(NULL)``, which promises that the program has no threads (PKCS#11 v2.40,
section 5.4); SoftHSM then switches its mutexes off, while python-pkcs11 releases the GIL in every call. Two
threads crash the process. So the module is initialised here with ``CKF_OS_LOCKING_OK`` instead.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pkcs11 import _pkcs11
from pkcs11.exceptions import PKCS11Error

from hsm_keys.errors import StoreError, StoreNotFoundError, StoreUnavailableError
from hsm_keys.forks import ProcessLock
from hsm_keys.stores.pkcs11.errors import reason
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from types import TracebackType

    from hsm_keys.stores.pkcs11.login import Login
    from hsm_keys.stores.pkcs11.pool import SessionPool

__all__ = ["PATIENCE_S", "Module", "PatientLock", "acquire", "find_module"]

PATIENCE_S: Final = 30.0
"""How long a thread waits for others that are inside the module. A call into one may never return."""

_AT_REST_S: Final = 2.0
"""How long closing and forking wait for signatures under way."""

_CKR_OK: Final = 0x000
_CKR_ARGUMENTS_BAD: Final = 0x007
_CKR_NEED_TO_CREATE_THREADS: Final = 0x009
_CKR_CANT_LOCK: Final = 0x00A
_CKR_CRYPTOKI_ALREADY_INITIALIZED: Final = 0x191
_CKF_OS_LOCKING_OK: Final = 0x002

_USUAL_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)

_PARALLEL_SAFE: Final = ("SoftHSM", "openCryptoki", "Meta PKCS11 LIBRARY")  # the last is openCryptoki's older name
"""Modules (by a word of manufacturer or description) on which 8 threads signed 160,000 times without a bad
signature. Some other modules fail as soon as two sessions sign at once, so unknown ones are serialised."""


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_void_p),
    )


class _FunctionList(ctypes.Structure):
    """The head of CK_FUNCTION_LIST, as far as it is called here."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        ("C_Finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
    )


def _shared_function_list(path: str) -> _FunctionList | None:
    """Return the module's function list; None where every caller gets a list of its own.

    Such a module (p11-kit-client is one) keeps its state behind the list, so that initialising through ours
    would leave python-pkcs11's copy uninitialised.
    """
    get_list = ctypes.CDLL(path).C_GetFunctionList
    first, second = ctypes.POINTER(_FunctionList)(), ctypes.POINTER(_FunctionList)()
    if get_list(ctypes.byref(first)) != _CKR_OK or get_list(ctypes.byref(second)) != _CKR_OK:
        return None
    same = ctypes.addressof(first.contents) == ctypes.addressof(second.contents)
    return first.contents if same else None


class _Library(_pkcs11.lib):
    """python-pkcs11's library object, initialised with operating system locking where that is possible."""

    locking: bool = False
    _functions: _FunctionList | None = None

    def initialize(self) -> None:
        """Call C_Initialize; python-pkcs11 calls this from its constructor."""
        self._functions = _shared_function_list(self.so)
        if self._functions is not None:
            arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK)
            result = self._functions.C_Initialize(ctypes.byref(arguments))
            if result == _CKR_OK:
                self.locking = True
                return
            if result == _CKR_CRYPTOKI_ALREADY_INITIALIZED:
                # Other code of this process owns the module: usable, but nobody knows with which locking.
                self._functions = None
                return
            if result not in {_CKR_ARGUMENTS_BAD, _CKR_CANT_LOCK, _CKR_NEED_TO_CREATE_THREADS}:
                raise PKCS11Error(f"C_Initialize answered {result:#x}")
            self._functions = None
        super().initialize()

    def finalize(self) -> None:
        """Call C_Finalize, if this object initialised the module."""
        if self._functions is not None:
            self._functions.C_Finalize(None)
            self._functions = None
            self.locking = False
        elif self.initialized:
            super().finalize()


_lock = ProcessLock()
_libraries: dict[str, _Library] = {}  # never dropped: sessions point into a library that dropping would unload
_modules: dict[str, Module] = {}
_unusable: set[str] = set()  # forked while a thread was inside


class PatientLock:
    """A re-entrant lock; ``with`` gives up after ``PATIENCE_S``, since whoever has it may never come back.

    Raises:
        StoreUnavailableError: From ``with``, if it couldn't be had.
    """

    def __init__(self) -> None:
        lock = threading.RLock()
        self.acquire = lock.acquire
        self.release = lock.release

    def __enter__(self) -> None:
        if not self.acquire(timeout=PATIENCE_S):
            raise StoreUnavailableError(
                f"a call into the PKCS#11 module hasn't returned for {PATIENCE_S:.0f} s",
                hint="check the token and its daemon; restart this program if it never returns",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Module:
    """A loaded and initialised PKCS#11 module; one object a process and path.

    Attributes:
        file: Absolute path of the shared object, links resolved: one module, whatever it is called.
        mutex: Held around generate, find, relabel and destroy. ``find`` beside ``generate`` in another thread
            corrupts objects, even on modules that lock.
        epoch: How often it was initialised again; handles of an earlier epoch are worth nothing.
        logins: The login of each slot; guarded by the mutex.
        pools: The sessions that sign, of all stores.
        restarting: Held while it is initialised again.
        rests_until: On the monotonic clock; before that it isn't initialised again.
        signing: Held around each signature: the mutex itself where the module must be serialised.
    """

    def __init__(self, file: str, library: _Library) -> None:
        self.file = file
        self.library = library
        self.mutex = PatientLock()
        self.users = 0
        self.epoch = 0
        self.logins: dict[int, Login] = {}
        self.pools: set[SessionPool] = set()
        self.parallel = library.locking and any(
            word in f"{library.manufacturer_id} {library.library_description}" for word in _PARALLEL_SAFE
        )
        self.restarting = threading.Lock()
        self.rests_until = 0.0
        self.signing: AbstractContextManager[object] = nullcontext() if self.parallel else self.mutex

    def rest(self, deadline: float, *, for_good: bool) -> bool:
        """Let no thread into the module, and wait until none is inside.

        Args:
            deadline: Until when to wait, on the monotonic clock.
            for_good: Whether the pools give no lanes ever after.

        Returns:
            Whether none is; the mutex is held then, and to be released. Other than for good, ``resume`` ends it.
        """
        while True:
            pools = list(self.pools)
            for pool in pools:
                pool.halt(for_good=for_good)
            if not all(pool.is_idle(deadline) for pool in pools):
                return False
            if not self.mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return False
            if all(pool.halted for pool in list(self.pools)):
                return True
            self.mutex.release()  # a store has opened a further one meanwhile

    def resume(self) -> None:
        """Let threads in again, after ``rest``."""
        for pool in list(self.pools):
            pool.resume()

    def release(self) -> None:
        """Give one ``acquire`` back; the last one finalises the module.

        It stays as it is if a call into it doesn't return: that would go on in freed memory.
        """
        with _lock:
            self.users -= 1
            if self.users or _modules.get(self.file) is not self:
                return
            if not self.rest(time.monotonic() + _AT_REST_S, for_good=True):
                return
            try:
                del _modules[self.file]
                with suppress(PKCS11Error):
                    self.library.finalize()
            finally:
                self.mutex.release()


class _Forks:
    """Keeps all threads out of all modules while the process forks.

    A child has only the thread that forked it. A lock that another one held inside the module stays locked there for
    ever, and what it was changing stays half changed: C_Finalize hung or crashed in 7 of 100 children of a program
    that signed with SoftHSM on four threads.
    """

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._at_rest: list[Module] = []
        self._busy: set[str] = set()
        self._counting = False  # whether acquiring and releasing wait, too
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def _before(self) -> None:
        self._alone.acquire()
        deadline = time.monotonic() + _AT_REST_S
        self._counting = _lock.acquire(_AT_REST_S)
        for module in list(_modules.values()):
            if module.rest(deadline, for_good=False):
                self._at_rest.append(module)
            else:
                module.resume()
                self._busy.add(module.file)

    def _in_parent(self) -> None:
        for module in self._at_rest:
            module.mutex.release()
            module.resume()
        self._at_rest.clear()
        self._busy.clear()
        if self._counting:
            _lock.release()
        self._alone.release()

    def _in_child(self) -> None:
        _unusable.update(self._busy)
        _modules.clear()  # a child initialises anew
        self._at_rest.clear()
        self._busy.clear()
        self._alone = threading.Lock()


_Forks()


def find_module(path: str | None) -> str:
    """Return the absolute path of the module to load.

    Args:
        path: As given by URI, option or ``HSM_KEYS_MODULE``; None looks where SoftHSM usually is.

    Raises:
        StoreNotFoundError: If there is no such file.
    """
    if path is None:
        path = next((usual for usual in _USUAL_MODULES if Path(usual).is_file()), None)
        if path is None:
            raise StoreNotFoundError(
                "no PKCS#11 module was named, and SoftHSM is in none of its usual places",
                hint="give --module PATH, set HSM_KEYS_MODULE, or add module-path to the URI",
            )
    if not Path(path).is_file():
        raise StoreNotFoundError(
            f"there is no PKCS#11 module at {shown_path(path)}",
            hint="give the path of the vendor's shared object, such as /usr/lib/softhsm/libsofthsm2.so",
        )
    # Not resolved: a distribution's link outlives the versioned file that it points to today.
    return str(Path(path).absolute())


def acquire(path: str) -> Module:
    """Return the module at the path, loaded and initialised; call ``release`` when done.

    Raises:
        StoreNotFoundError: If there is no such file.
        StoreUnavailableError: If it doesn't initialise, or was in use when this process was forked.
        StoreError: If it isn't a PKCS#11 module.
    """
    path = find_module(path)
    file = str(Path(path).resolve())
    if file in _unusable:
        raise StoreUnavailableError(
            f"this process was forked while a call into the PKCS#11 module {path} didn't return: here it can't be used",
            hint="check the token and its daemon; start a new process, or use open_store(..., isolated=True)",
        )
    with _lock:
        module = _modules.get(file)
        if module is None:
            module = _modules[file] = Module(file, _initialised(file, path))
        module.users += 1
        return module


def _initialised(file: str, path: str) -> _Library:
    """Return the library of a file, initialised; ``path`` is what people call it."""
    library = _libraries.get(file)
    try:
        if library is None:
            library = _libraries[file] = _Library(file)
        else:
            with suppress(PKCS11Error):  # in a forked child the parent's state is still there
                library.finalize()
            library.initialize()
    except PKCS11Error as error:
        raise StoreUnavailableError(
            f"the PKCS#11 module {path} didn't initialise: {reason(error)}",
            hint="check the module's own configuration (SOFTHSM2_CONF, its daemon, its permissions)",
        ) from None
    except (AttributeError, OSError) as error:
        raise StoreError(
            f"{path} is not a PKCS#11 module: {error}", hint="give the vendor's PKCS#11 shared object"
        ) from None
    return library
