"""Sends signed requests at a steady rate until stdin closes; then prints what became of them, as JSON.

``python trade_on.py STORE-URI NAME RATE-A-SECOND THREADS``: prints ``ready`` once the first request was answered.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter

from hsm_keys import HsmKeysError, KalshiClient, open_store


def main(uri: str, name: str, rate: float, threads: int) -> None:
    """Trade until stdin closes."""
    outcomes: Counter[str] = Counter()
    signed_by: dict[str, None] = {}
    slowest = [0.0]
    stop = threading.Event()
    with open_store(uri) as store, KalshiClient(store.key(name).signer()) as client:

        def once() -> None:
            begun = time.perf_counter()
            try:
                answer = client.request("POST", "/portfolio/events/orders", content=b"{}")
            except HsmKeysError as error:
                outcomes[error.code] += 1
            else:
                # An order without fields is refused with 400 once its signature has been taken.
                outcomes["taken" if answer.status_code == 400 else str(answer.status_code)] += 1
                signed_by[answer.request.headers["KALSHI-ACCESS-KEY"]] = None
            slowest[0] = max(slowest[0], time.perf_counter() - begun)

        def trade(delay: float) -> None:
            due = time.monotonic() + delay
            while not stop.wait(max(0.0, due - time.monotonic())):
                once()
                due += threads / rate

        once()
        print("ready", flush=True)  # noqa: T201 - the test waits for it
        traders = [threading.Thread(target=trade, args=(index / rate,)) for index in range(threads)]
        for trader in traders:
            trader.start()
        sys.stdin.read()
        stop.set()
        for trader in traders:
            trader.join()
    print(json.dumps({"outcomes": outcomes, "signed_by": list(signed_by), "slowest_ms": slowest[0] * 1000}))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
