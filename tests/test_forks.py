"""What a forked child must not take over."""

from __future__ import annotations

import os

from hsm_keys.forks import ProcessLock, fork_generation


def test_a_child_has_a_generation_of_its_own_and_a_free_lock() -> None:
    lock = ProcessLock()
    before = fork_generation()
    reading, writing = os.pipe()
    with lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            free = lock._lock.acquire(blocking=False)
            os.write(writing, b"%d %d" % (fork_generation() - before, free))
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"1 1"
    os.close(reading)
    os.close(writing)
    assert fork_generation() == before
