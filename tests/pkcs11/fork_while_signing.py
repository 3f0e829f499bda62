"""Fork again and again while threads sign and look keys up; print how many children signed.

``python fork_while_signing.py URI COUNT``
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING

from hsm_keys import open_store
from hsm_keys.signing.algorithms import verifies

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys import StoredKey


def child_signs(key: StoredKey) -> bool:
    """Tell whether a child signs within 20 seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            faulthandler.dump_traceback_later(15)
            os.write(writing, key.sign(b"child"))
        except BaseException:  # noqa: BLE001 - the child ends here, and says why
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        ready = select.select([pipe], [], [], 20)[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
        signature = pipe.read()
    os.waitpid(child, 0)
    return verifies(key.public_key(), b"child", signature)


def main() -> None:
    """Fork, and count."""
    uri, count = sys.argv[1], int(sys.argv[2])
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: that is what is tried
    over, errors = threading.Event(), list[BaseException]()

    def until_over(work: Callable[[], object]) -> None:
        while not over.is_set():
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is counted
                errors.append(error)

    with open_store(uri) as store:
        key = store.key("prod")
        works: list[Callable[[], object]] = [lambda: key.sign(b"parent")] * 4 + [store.keys]
        threads = [threading.Thread(target=until_over, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        good = sum(child_signs(key) for _ in range(count))
        over.set()
        for thread in threads:
            thread.join()
    sys.stdout.write(f"{good} good, {len(errors)} errors in the parent\n")


if __name__ == "__main__":
    main()
