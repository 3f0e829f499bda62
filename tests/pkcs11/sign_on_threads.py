"""Sign on 8 threads at once and verify every signature; run in a process of its own, which may crash.

Arguments: the store's URI, the signatures a thread makes, and optionally ``unlocked``: then the module is
initialised the way python-pkcs11 does it, without locking, to show what that does.
"""

import sys
import threading
from typing import TYPE_CHECKING

from hsm_keys import open_store
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.pkcs11.cryptoki import Functions

if TYPE_CHECKING:
    from hsm_keys import StoredKey

THREADS = 8


def main(uri: str, count: int, mode: str = "locked") -> int:
    if mode == "unlocked":
        initialize = Functions.initialize
        Functions.initialize = lambda self, **_: initialize(self, locking=False)  # type: ignore[method-assign]
    good: list[int] = []

    def work(key: "StoredKey", thread: int) -> None:
        for number in range(count):
            message = f"{thread}-{number}".encode()
            if verifies(key.public_key(), message, key.sign(message)):
                good.append(number)

    with open_store(uri) as store:
        keys = [store.key("rsa"), store.key("ed25519")]
        threads = [threading.Thread(target=work, args=(keys[n % 2], n)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.stdout.write(f"{len(good)}\n")
    return 0 if len(good) == THREADS * count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
