"""PKCS#11 modules in use: one object for each module in a process, with what all its users share.

C_Initialize and C_Finalize are for all code of the process. So a module is finalised when the last store is
closed, or when the program ends, but only if no other code has a session. Other code has one if the token is still
logged in after all our sessions were closed.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreError, StoreUnavailableError
from hsm_keys.forks import ProcessLock
from hsm_keys.stores.pkcs11.library import Library, find_module, load_library, renewed
from hsm_keys.stores.pkcs11.patience import PatientLock, end_of_program
from hsm_keys.stores.pkcs11.softhsm_conf import check_configuration

if TYPE_CHECKING:
    from hsm_keys.stores.pkcs11.login import Login
    from hsm_keys.stores.pkcs11.pool import SessionPool

__all__ = ["Module", "acquire_module"]

_AT_REST_S: Final = 2.0
"""How long closing waits for signatures under way."""

_FORK_WAITS_S: Final = 8.0
"""How long forking waits for calls under way: a child forked too early can't use the module, and a busy machine may
let a thread stand inside for seconds."""

_PARALLEL_SAFE: Final = ("SoftHSM",)
"""Modules (by a word of manufacturer or description) on which 8 threads signed 160,000 times without a bad
signature. Some other modules fail as soon as two sessions sign at once, so unknown ones are serialised. openCryptoki
3.8 passed that, too, and crashed in 3 of 70 new processes whose threads made their first signatures at one time."""


_lock = ProcessLock()
_libraries: dict[str, Library] = {}  # never dropped: sessions point into a library that dropping would unload
_modules: dict[str, Module] = {}
_unusable: set[str] = set()  # forked while a thread was inside


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

    def __init__(self, file: str, library: Library) -> None:
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

    @property
    def software(self) -> str:
        """What it says of itself: maker, name and version."""
        library = self.library
        version = ".".join(map(str, library.library_version))
        return f"{library.manufacturer_id} {library.library_description}, version {version}"

    def rest(self, deadline: float, *, for_good: bool) -> bool:
        """Let no thread into the module, and wait until none is inside.

        Args:
            deadline: Until when to wait, on the monotonic clock.
            for_good: Whether the pools give no sessions ever after.

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
            self.mutex.release()  # a store has opened another session meanwhile

    def resume(self) -> None:
        """Let threads in again, after ``rest``."""
        for pool in list(self.pools):
            pool.resume()

    def release(self) -> None:
        """Give the module back; its last user finalises it, unless other code of the process uses it.

        It stays as it is if a call into it doesn't return: that would go on in freed memory.
        """
        with _lock:
            self.users -= 1
            if self.users or _modules.get(self.file) is not self:
                return
            if not self.close(time.monotonic() + _AT_REST_S):
                return
            try:
                del _modules[self.file]
                self.library.end()
            finally:
                self.mutex.release()

    def renew(self) -> bool:
        """Initialise it again, so that it shows what has changed, unless other code of the process has sessions.

        The sessions of all stores are closed, which open others when they are used next.

        Returns:
            Whether it was done; not if a call doesn't return.

        Raises:
            PKCS11Error: If it doesn't initialise again.
        """
        if not self.rest(time.monotonic() + _AT_REST_S, for_good=False):
            self.resume()
            return False
        try:
            for pool in list(self.pools):
                pool.close()
            for login in self.logins.values():
                login.end()
            self.logins.clear()
            self.epoch += 1
            self.library.renew()
        finally:
            self.mutex.release()
        return True

    def close(self, deadline: float) -> bool:
        """Close all sessions, log out, and let no other thread in any more; return whether no thread is inside.

        Args:
            deadline: Until when to wait, on the monotonic clock.
        """
        if not self.rest(deadline, for_good=True):
            return False
        for pool in list(self.pools):
            pool.close()
        for login in list(self.logins.values()):
            login.end()
        return True


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
        deadline = time.monotonic() + _FORK_WAITS_S
        self._counting = _lock.acquire(_FORK_WAITS_S)
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


def acquire_module(path: str) -> Module:
    """Return the module at the path, loaded and initialised; call ``release`` when done.

    Raises:
        StoreNotFoundError: If there is no such file, or SoftHSM's configuration can't be read.
        StoreUnavailableError: If it doesn't initialise, or was in use when this process was forked.
        StoreError: If it isn't a PKCS#11 module, or this is a sub-interpreter.
    """
    _refuse_sub_interpreter()
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
            if "softhsm" in file.lower():
                check_configuration()
            library = _libraries.get(file)
            library = _libraries[file] = load_library(file, path) if library is None else renewed(library, path)
            module = _modules[file] = Module(file, library)
        module.users += 1
        return module


def _refuse_sub_interpreter() -> None:
    """Refuse where python-pkcs11 hangs: it takes the GIL by PyGILState_Ensure, which knows the main interpreter alone.

    Raises:
        StoreError: If this is a sub-interpreter, as mod_wsgi makes one for each application.
    """
    here, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    here.restype = main.restype = ctypes.c_void_p
    if here() != main():
        raise StoreError(
            "a sub-interpreter of Python can't use a PKCS#11 module: python-pkcs11 would hang in it",
            hint="run it in the main interpreter (mod_wsgi: WSGIApplicationGroup %{GLOBAL}), or open_store(..., "
            "isolated=True)",
        )


@atexit.register
def _finish() -> None:
    """Leave every module in order: one that is unloaded while it is initialised, or a thread is inside, crashes."""
    end_of_program()
    deadline = time.monotonic() + _AT_REST_S
    if not _lock.acquire(_AT_REST_S):
        return
    try:
        hanging = {module.file for module in list(_modules.values()) if not module.close(deadline)}
        for file, library in _libraries.items():
            if file not in hanging:
                library.end()
        _modules.clear()  # code that signs in a later function of atexit initialises it again
    finally:
        _lock.release()
