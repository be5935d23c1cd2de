"""Limiters by themselves: what they admit, and that both sides are never blocked at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shmtable import MinSize, Queue, SampleToInsertRatio, SpecError, Stack
from shmtable.limiters import Standing

RATIOS = (0.1, 0.25, 1 / 3, 0.7, 1.0, 1.5, 3.0)
MAXLEN = 6


def states(
    limiter: SampleToInsertRatio, adds: tuple[int, ...], samples: tuple[int, ...]
) -> Iterator[Standing]:
    """Everything that adds, samples, removals and a fresh start of the counts lead to.

    ``ahead`` is computed as a table does, from counts that only rise: inserted, sampled.
    """
    seen = set()
    first = [(0, 0, 0, 0.0)]
    first += [
        (live, 0, 0, limiter.first_ahead(live, max(adds), max(samples)))
        for live in range(MAXLEN + 1)
    ]
    while first:
        state = first.pop()
        # What differs only by rounding behaves alike, and would go on for ever.
        live, inserted, sampled, base = state
        ahead = base + (inserted * limiter.ratio - sampled)
        key = (live, round(ahead, 6))
        if key in seen:
            continue
        seen.add(key)
        now = Standing(live, 0, ahead)
        yield now
        for add in adds:
            if not limiter.insert_blocked(now, add):
                # The ejector makes room, as much as it must or all there is.
                for left in {min(live, MAXLEN - add), 0}:
                    if ahead < limiter.high + 8:
                        first.append((left + add, inserted + add, sampled, base))
        for sample in samples:
            if not limiter.sample_blocked(now, sample):
                first.append((live, inserted, sampled + sample, base))
        if live:
            first.append((live - 1, inserted, sampled, base))


def stuck(limiter: SampleToInsertRatio, adds: tuple[int, ...], samples: tuple[int, ...]) -> str:
    """A state in which some add and some sample would wait for each other for ever."""
    for now in states(limiter, adds, samples):
        for add in adds:
            for sample in samples:
                if limiter.insert_blocked(now, add) and limiter.sample_blocked(now, sample):
                    return f"{limiter}, {now}, {add}, {sample}"
    return ""


@pytest.mark.parametrize("ratio", RATIOS)
def test_both_sides_are_never_blocked_where_the_largest_fit(ratio: float) -> None:
    tried = 0
    for largest_add in (1, 2, 4):
        for largest_sample in (1, 3):
            wanted = largest_add * ratio + largest_sample
            for min_size in (1, 3, MAXLEN):
                middle = min_size * ratio
                for buffer in (wanted / 2, wanted / 2 + 0.3, (middle - wanted, middle),
                               (middle, middle + wanted), (-1.0, wanted - 1.0)):  # fmt: skip
                    limiter = SampleToInsertRatio(ratio, min_size, buffer)
                    assert limiter.impossible(largest_add, largest_sample) == ""
                    adds = tuple({1, largest_add})
                    samples = tuple({1, largest_sample})
                    assert stuck(limiter, adds, samples) == ""
                    tried += 1
    assert tried == 90


@pytest.mark.parametrize("ratio", RATIOS)
def test_what_is_refused_would_have_got_stuck(ratio: float) -> None:
    limiter = SampleToInsertRatio(ratio, 1, (0.0, 3 * ratio + 2))
    assert limiter.impossible(3, 2) == ""
    assert "could wait for each other for ever" in limiter.impossible(4, 3)
    found = [stuck(limiter, (1, 4), (1, sample)) for sample in (3, 4, 5, 6)]
    assert any(found), "the refusal would be for nothing"


@pytest.mark.parametrize("ratio", RATIOS)
def test_neither_side_waits_at_the_start(ratio: float) -> None:
    limiter = SampleToInsertRatio(ratio, 3, (4 * ratio + 2) / 2)
    for live in range(MAXLEN + 1):
        now = Standing(live, 0, limiter.first_ahead(live, 4, 2))
        assert limiter.insert_blocked(now, 4) == ""
        assert (limiter.sample_blocked(now, 2) == "") == (live >= 3)


def test_the_band_is_reverbs() -> None:
    limiter = SampleToInsertRatio(2.0, 100, 50)
    assert (limiter.low, limiter.high) == (150, 250)
    assert limiter.insert_blocked(Standing(100, 0, 240.0), 5) == ""
    assert "would be 252 transitions, at most 250" in limiter.insert_blocked(
        Standing(100, 0, 240.0), 6
    )
    assert limiter.insert_blocked(Standing(99, 0, 249.0), 6) == ""
    assert "would be 252" in limiter.insert_blocked(Standing(99, 1, 248.0), 1)
    assert limiter.sample_blocked(Standing(100, 50, 160.0), 10) == ""
    assert "would be 149" in limiter.sample_blocked(Standing(100, 50, 160.0), 11)
    assert "99 of the 100" in limiter.sample_blocked(Standing(99, 50, 240.0), 1)
    pair = SampleToInsertRatio(2.0, 100, [150, 250])  # type: ignore[arg-type]
    assert (pair.low, pair.high, pair.error_buffer) == (150, 250, (150, 250))


def test_what_counts() -> None:
    per_step = SampleToInsertRatio(1.0, 1, 50)
    per_sequence = SampleToInsertRatio(1.0, 1, 50, per="sequence")
    assert (per_step.insert_amount(7), per_step.sample_amount(4, 3)) == (7, 12)
    assert (per_sequence.insert_amount(7), per_sequence.sample_amount(4, 3)) == (1, 4)


def test_a_queue_goes_by_what_there_is() -> None:
    queue = Queue(3)
    assert queue.insert_blocked(Standing(2, 0, room=9), 9) == ""
    assert "room for 9 transitions" in queue.insert_blocked(Standing(2, 0, room=9), 10)
    assert "size is 3" in queue.insert_blocked(Standing(2, 1, room=9), 1)
    assert queue.sample_blocked(Standing(2, 1), 2) == ""
    assert "2 sequences wait" in queue.sample_blocked(Standing(2, 1), 3)
    assert queue.impossible(100, 3) == ""
    assert "at most 3 sequences wait at a time" in queue.impossible(1, 4)
    assert Stack(3) != queue


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MinSize(0), "min_size is 0; give an integer of at least 1"),
        (lambda: MinSize(True), "min_size is True"),
        (lambda: MinSize(5, per="step"), "per is 'step'"),
        (lambda: MinSize(2.5), "min_size is 2.5"),
        (lambda: Queue(0), "Queue: size is 0"),
        (lambda: Stack(-1), "Stack: size is -1"),
        (lambda: SampleToInsertRatio(0, 1, 5), "ratio is 0"),
        (lambda: SampleToInsertRatio(float("nan"), 1, 5), "ratio is nan"),
        (lambda: SampleToInsertRatio(float("inf"), 1, 5), "ratio is inf"),
        (lambda: SampleToInsertRatio("1", 1, 5), "ratio is '1'"),
        (lambda: SampleToInsertRatio(1, 0, 5), "min_size is 0"),
        (lambda: SampleToInsertRatio(1, 1, float("nan")), "error_buffer is nan"),
        (lambda: SampleToInsertRatio(1, 1, -2), "error_buffer is -2"),
        (lambda: SampleToInsertRatio(1, 1, (1, 2, 3)), r"error_buffer is \(1, 2, 3\)"),
        (lambda: SampleToInsertRatio(1, 1, (0, float("inf"))), r"error_buffer is \(0, inf\)"),
        (lambda: SampleToInsertRatio(1, 1, 0.9), r"error_buffer of at least 1\b"),
        (lambda: SampleToInsertRatio(3, 10, 1.9), r"error_buffer of at least 2\b"),
        (lambda: SampleToInsertRatio(1, 1, (5, 1)), r"error_buffer=\(5, 1\) leaves -4 from"),
        (lambda: SampleToInsertRatio(1, 1, 5, per="x"), "per is 'x'"),
    ],
)
def test_settings_that_cannot_be(make: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        make()
