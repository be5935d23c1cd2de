"""Workers are killed at random, and nobody notices."""

from __future__ import annotations

import threading
import time

import pytest

from tests.chaos.meter import Meter, Records, Word
from tests.chaos.storm import Storm

SECONDS = 5.0
PROCESSES = 3
LONGEST_S = 5.0  # of a stall: ``python -m tests.chaos`` is stricter, but not run beside others


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_nothing_is_lost_torn_or_held_up_when_workers_are_killed(lock: str) -> None:
    tally = Storm(lock, PROCESSES, seed=len(lock)).rage(SECONDS)
    print(f"{lock} lock: {tally}")
    assert tally.kills > 0 and tally.windows > 0 and tally.acknowledged > 0
    assert tally.longest_ns < LONGEST_S * 1e9


def test_being_blocked_is_a_stall_and_being_busy_is_not() -> None:
    records = Records(2)

    def spin() -> None:
        until = time.thread_time() + 0.4
        while time.thread_time() < until:
            pass

    Meter(records.words[0]).call("add", threading.Event().wait, 0.3)
    Meter(records.words[1]).call("add", spin)
    blocked, busy = records.words[:, Word.LONGEST_NS].tolist()
    assert blocked > 0.2e9 > busy
    assert records.words[:, Word.CALLS].tolist() == [1, 1]
    assert not records.words[:, Word.SINCE_NS].any()
