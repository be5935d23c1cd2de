"""``python -m tests.chaos``: kills processes at random, or after each of their stores in turn."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from tests.chaos.every_store import Trial
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.storm import Storm

STALL_LIMIT_S = 1.0


def main() -> int:
    """Exit status 0 when everything survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the storm")
    parser.add_argument("--seconds", type=float, default=120.0, help="of storm, in all")
    parser.add_argument("--processes", type=int, default=5, help="workers, at least 2")
    parser.add_argument("--lock", choices=("robust", "portable", "both"), default="both")
    parser.add_argument(
        "--every-store", action="store_true", help="instead: die after every store of every call"
    )
    options = parser.parse_args()
    if options.processes < 2:
        parser.error("--processes must be at least 2: somebody has to survive")
    torch.set_num_threads(1)
    locks = ("robust", "portable") if options.lock == "both" else (options.lock,)
    try:
        return every_store(locks) if options.every_store else storm(options, locks)
    except AssertionError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        raise


def storm(options: argparse.Namespace, locks: tuple[str, ...]) -> int:
    """Random kills, with one lock kind after the other."""
    print(
        f"storm: seed {options.seed}, {options.seconds:g} s, {options.processes} processes",
        flush=True,
    )
    status = kills = 0
    for lock in locks:
        raging = Storm(lock, options.processes, options.seed)
        tally = raging.rage(options.seconds / len(locks), lambda line: print(line, flush=True))
        print(f"{lock} lock: {tally}", flush=True)
        kills += tally.kills
        if tally.longest_ns > STALL_LIMIT_S * 1e9:
            print(f"FAILED: a stall above {STALL_LIMIT_S:g} s", file=sys.stderr)
            status = 1
    print(f"{kills} kills survived in all")
    return status


def every_store(locks: tuple[str, ...]) -> int:
    """A death after each store of each scenario's call, and after each of the recovery's."""
    deaths = 0
    for lock in locks:
        for scenario in SCENARIOS:
            with scenario.table(lock) as table:
                trial = Trial(scenario, table, whole=True)
                first, second = trial.every_death(), 0
                commit = trial.first_commit()
                if commit is not None and scenario.beside is None:
                    second = trial.every_second_death(commit)
            deaths += first + second
            print(
                f"{lock:8} {scenario.name:30} {first:4} stores, {second:4} of its recovery",
                flush=True,
            )
    print(f"{deaths} deaths survived")
    return 0


if __name__ == "__main__":
    sys.exit(main())
