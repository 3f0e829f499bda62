"""Lives lives: ``python -m tests.simulation --lives 20000``, or tells the story of one with ``--seed N``."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.doubles import doubles
from tests.simulation.hunting import hunt_all
from tests.simulation.lives import live_all
from tests.simulation.script import Name, script_of
from tests.simulation.shrinking import shrunk, told

_SHOWN = 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=Name.parse, help="tell the story of one life, cut down to what goes wrong")
    parser.add_argument("--lives", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hits", type=int, default=0, help="aim further lives where commands were killed less often")
    parser.add_argument("--places", action="store_true", help="print how often a command was killed at each place")
    parser.add_argument("--mutants", action="store_true", help="look for each planted fault in so many lives")
    options = parser.parse_args()
    if options.seed is not None:
        with doubles():
            print(*told(shrunk(script_of(*options.seed))), sep="\n")  # noqa: T201
        return 0
    if options.mutants:
        return _hunt(options.lives, options.workers)
    begun = time.monotonic()
    tally = live_all(options.first, options.lives, options.workers, options.hits)
    seconds, kills = time.monotonic() - begun, f"{tally.kills.total()} kills at {len(tally.kills)} places"
    lines = [f"{tally.lives} lives in {seconds:.0f} s: {tally.faults} faults, {kills}, {len(tally.wrong)} wrong"]
    if options.places:
        lines += [f"{count:8}  {command}: {place}" for (command, place), count in sorted(tally.kills.items())]
        lines += [f"{count:8}  {command}: the least" for command, count in tally.least().items()]
    lines += [f"seed {name}: {violation}" for name, violation in tally.wrong[:_SHOWN]]
    print(*lines, sep="\n")  # noqa: T201
    return 1 if tally.wrong else 0


def _hunt(lives: int, workers: int) -> int:
    """Print after how many lives each planted fault is found."""
    missed = 0
    for found in hunt_all(lives, workers):
        missed += not found.violation
        print(f"{found.lives:8}  {found.mutant}: {found.violation or 'not found'}", flush=True)  # noqa: T201
    print(f"{missed} of them weren't found")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
