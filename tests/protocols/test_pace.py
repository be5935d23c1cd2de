"""Limiters of a table: what waits, what is refused, and where the counting begins."""

from __future__ import annotations

import logging
import multiprocessing.reduction
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shmtable import (
    ArenaDamagedError,
    ArrayMemoryTable,
    DuplicateIdentityError,
    EmptyTableError,
    FifoSampleStrategy,
    Limiter,
    MinSize,
    Queue,
    RateLimitedError,
    SampleToInsertRatio,
    SequenceError,
    SpecError,
    Stack,
    WaitTimeoutError,
    WithoutReplacementSampleStrategy,
)
from shmtable.index import fields as f
from shmtable.protocols import read, wait
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
LONG_S = 60.0


def add(table: ArrayMemoryTable, first: int, *lengths: int, timeout_s: float = 0) -> None:
    for identity, length in enumerate(lengths, first):
        table.add_sequence(identity, small_sequence(identity, length), timeout_s=timeout_s)


def adds_admitted(table: ArrayMemoryTable, first: int, length: int) -> int:
    """Adds until the limiter says no; how many it took."""
    for number in range(1000):
        admitted = table.can_insert(length)
        try:
            add(table, first + number, length)
        except RateLimitedError:
            assert not admitted
            return number
        assert admitted
    raise AssertionError("never held back")


def samples_admitted(table: ArrayMemoryTable, count: int, steps: int) -> int:
    for number in range(1000):
        admitted = table.can_sample(count, steps)
        try:
            table.sample(count, steps)
        except RateLimitedError:
            assert not admitted
            return number
        assert admitted
    raise AssertionError("never held back")


def test_min_size_holds_samples_back(make_table: MakeTable) -> None:
    table = make_table(limiter=MinSize(25))
    with pytest.raises(EmptyTableError):
        table.sample(1, 1)
    add(table, 0, 10, 14)
    assert table.can_insert() and not table.can_sample(1, 1)
    with pytest.raises(RateLimitedError, match="holds 24 of the 25 transitions.*timeout_s"):
        table.sample(1, 1)
    with pytest.raises(WaitTimeoutError, match=r"holds sample back for 0.02 s: .* 24 of the 25"):
        table.sample(1, 1, timeout_s=0.02)
    add(table, 2, 1)
    assert table.can_sample(4, 10) and not table.can_sample(4, 15)
    assert len(table.sample(4, 10)["actions"]) == 40
    table.remove(0)
    assert not table.can_sample(1, 1)


def test_the_ratio_holds_back_whoever_is_ahead(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(2.0, 20, 30))  # 10 to 70
    assert adds_admitted(table, 0, 5) == 7
    with pytest.raises(RateLimitedError, match="would be 80 transitions, at most 70"):
        add(table, 50, 5)
    assert samples_admitted(table, 2, 5) == 6
    with pytest.raises(RateLimitedError, match="would be 0 transitions, at least 10"):
        table.sample(2, 5)
    # However short they are, they leave room for one as long as the longest: d is 60 at most.
    assert adds_admitted(table, 100, 1) == 26


def test_sequences_count_as_such(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(0.5, 4, 3, per="sequence"))  # -1 to 5
    assert adds_admitted(table, 0, 9) == 10
    assert samples_admitted(table, 2, 5) == 3


def test_a_replacement_counts_as_inserted(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 1, 4), on_duplicate="replace")
    for _ in range(5):
        add(table, 7, 1)
    with pytest.raises(RateLimitedError):
        add(table, 7, 1)
    assert table.identities().tolist() == [7]


def test_several_at_once_stop_where_the_limiter_says(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 10, 10))
    with pytest.raises(RateLimitedError):
        table.add_sequences([(n, small_sequence(n, 3)) for n in range(9)], timeout_s=0)
    assert table.identities().tolist() == [0, 1, 2, 3, 4, 5]


def test_what_could_block_both_sides_is_refused(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 10, 15))
    add(table, 0, 6, 6)
    with pytest.raises(
        SpecError, match=r"6 \* 1 \+ 25 is 31, and error_buffer=15 leaves 30 .* at least 15.5"
    ):
        table.sample(5, 5, timeout_s=LONG_S)
    assert not table.can_sample(5, 5) and table.can_sample(4, 3)
    table.sample(4, 3)
    with pytest.raises(SpecError, match="adds of 19 and samples of 12"):
        add(table, 10, 19)
    assert table.identities().tolist() == [0, 1] and not table.can_insert(19)
    # Of several at once, those before it are added.
    with pytest.raises(SpecError):
        table.add_sequences([(2, small_sequence(2, 1)), (3, small_sequence(3, 19))])
    assert table.identities().tolist() == [0, 1, 2]
    table.limiter = SampleToInsertRatio(1.0, 10, 50)
    add(table, 10, 19)


def test_asking_changes_nothing(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 10, 15))
    assert not table.can_insert(200) and not table.can_sample(200, 1)
    assert table.can_insert(20)
    add(table, 0, 20)
    table.sample(10, 1)
    for wrong in (0, -1, "1", 2.5):
        with pytest.raises(SpecError):
            table.can_insert(wrong)  # type: ignore[arg-type]
        with pytest.raises(SpecError):
            table.can_sample(1, wrong)  # type: ignore[arg-type]


def test_setting_it_begins_anew_with_neither_side_waiting(make_table: MakeTable) -> None:
    table = make_table(maxlen=100)
    assert table.limiter is None
    add(table, 0, *[10] * 30)
    table.sample(50, 5)
    limiter = SampleToInsertRatio(1.0, 40, 20)
    table.limiter = limiter
    assert table.limiter == limiter
    assert adds_admitted(table, 100, 10) == 2  # from the middle of the band
    assert samples_admitted(table, 1, 10) == 4
    table.limiter = MinSize(100)
    table.sample(500, 1)
    table.limiter = None
    assert table.limiter is None
    add(table, 200, 50, 50)
    table.sample(500, 5)


@pytest.mark.parametrize(
    ("limiter", "told"),
    [
        (MinSize(101), r"min_size is 101 transitions, the table holds at most 100 \(maxlen\)"),
        (MinSize(11, per="sequence"), r"11 sequences, .* at most 10 \(max_sequences\)"),
        (SampleToInsertRatio(1, 101, 5), "min_size is 101"),
        (Queue(11), r"size is 11 sequences, .* \(max_sequences\)"),
        (Queue(5), r"sampler is a UniformSampleStrategy; .*FifoSampleStrategy\(\)"),
        (Stack(5), "each sequence once, the newest first"),
        (5, "limiter is 5; give one of MinSize"),
        (MinSize, "give one of MinSize"),
    ],
)
def test_limiters_that_do_not_fit(make_table: MakeTable, limiter: Any, told: str) -> None:
    options = {"maxlen": 100, "max_sequences": 10}
    with pytest.raises(SpecError, match=told):
        make_table(**options, limiter=limiter)
    table = make_table(**options, limiter=MinSize(3))
    with pytest.raises(SpecError, match=told):
        table.limiter = limiter
    assert table.limiter == MinSize(3)


def test_a_refused_limiter_leaves_no_file(
    make_table: MakeTable, tmp_path: Path, unique_name: Callable[[], str]
) -> None:
    with pytest.raises(SpecError):
        make_table(name=unique_name(), directory=str(tmp_path), limiter=MinSize(10**6))
    assert list(tmp_path.glob("*.shmtable")) == []


def test_a_users_own_limiter_is_refused(make_table: MakeTable) -> None:
    class Mine(MinSize):
        pass

    with pytest.raises(SpecError, match="give one of"):
        make_table(limiter=Mine(5))


@pytest.mark.parametrize(
    "limiter",
    [
        None,
        MinSize(7, per="sequence"),
        SampleToInsertRatio(0.3, 7, 20.5),
        SampleToInsertRatio(4, 7, (-3, 20), per="sequence"),
        Queue(9),
    ],
)
def test_it_is_everybodys(
    make_table: MakeTable, unique_name: Callable[[], str], limiter: Limiter | None
) -> None:
    name = unique_name()
    table = make_table(name=name, sampler=FifoSampleStrategy(), limiter=limiter)
    with ArrayMemoryTable.attach(name) as other:
        assert other.limiter == limiter
        other.limiter = MinSize(3)
        assert table.limiter == MinSize(3)
        table.limiter = limiter
        assert other.limiter == limiter
    copy = pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(table))
    assert copy.limiter == limiter
    copy.close()


def test_counts_are_everybodys(make_table: MakeTable, unique_name: Callable[[], str]) -> None:
    name = unique_name()
    table = make_table(name=name, limiter=SampleToInsertRatio(1.0, 10, 10))
    with ArrayMemoryTable.attach(name) as other:
        assert adds_admitted(other, 0, 5) == 4
        assert adds_admitted(table, 50, 5) == 0
        assert samples_admitted(table, 1, 5) == 4
        assert samples_admitted(other, 1, 5) == 0


def test_words_that_describe_no_limiter(
    make_table: MakeTable, tmp_path: Path, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    table = make_table(name=name, directory=str(tmp_path), limiter=MinSize(10))
    table._core.arena.words[f.PACE_SETS[1]] = 99
    table.close()
    with pytest.raises(ArenaDamagedError, match="describes no limiter"):
        ArrayMemoryTable.attach(name, directory=str(tmp_path))


def test_it_lasts_as_long_as_a_tables_file(
    make_table: MakeTable, tmp_path: Path, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    limiter = SampleToInsertRatio(1.0, 10, 10)
    table = make_table(name=name, directory=str(tmp_path), limiter=limiter)
    assert adds_admitted(table, 0, 5) == 4
    table.close()
    with ArrayMemoryTable.attach(name, directory=str(tmp_path)) as again:
        assert again.limiter == limiter
        assert adds_admitted(again, 50, 5) == 0
        assert samples_admitted(again, 1, 5) == 4


@pytest.mark.parametrize("blocked", ["adds", "samples"])
@pytest.mark.parametrize("how", ["clear", "restore"])
def test_neither_side_waits_after_clear_and_restore(
    make_table: MakeTable, tmp_path: Path, how: str, blocked: str
) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 20, 15))
    assert adds_admitted(table, 0, 5) == 7
    table.store(str(tmp_path / "file"))
    if blocked == "samples":
        assert samples_admitted(table, 1, 5) == 6
    if how == "restore":
        table.restore(str(tmp_path / "file"))
        assert adds_admitted(table, 100, 5) == 3
        assert samples_admitted(table, 1, 5) == (6 if blocked == "samples" else 5)
    else:
        table.clear()
        with pytest.raises(EmptyTableError):
            table.sample(1, 5)
        assert adds_admitted(table, 100, 5) == 7


def test_a_restored_queue_hands_everything_out_once_more(
    make_table: MakeTable, tmp_path: Path
) -> None:
    uniform = make_table()
    add(uniform, 0, 5, 5, 5)
    uniform.sample(20, 2)
    uniform.store(str(tmp_path / "file"))
    table = make_table(sampler=FifoSampleStrategy(), limiter=Queue(4))
    with pytest.warns(UserWarning, match="UniformSampleStrategy"):
        table.restore(str(tmp_path / "file"))
    add(table, 10, 5)
    with pytest.raises(RateLimitedError):
        add(table, 11, 5)
    assert table.sample(4, 2).points.identities.tolist() == [0, 1, 2, 10]  # type: ignore[union-attr]
    assert table.size() == 0


def test_a_duplicate_does_not_wait(make_table: MakeTable) -> None:
    table = make_table(limiter=Queue(1), sampler=FifoSampleStrategy())
    add(table, 0, 5)
    with pytest.raises(DuplicateIdentityError):
        add(table, 0, 5, timeout_s=LONG_S)
    with pytest.raises(SequenceError):
        table.add_sequence(1, {}, timeout_s=LONG_S)


def test_waiting_ends_with_the_other_side(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 10, 10))
    with ThreadPoolExecutor(2) as pool:
        sample = pool.submit(table.sample, 2, 5, timeout_s=LONG_S)
        add(table, 0, 5, 5)
        sample.result(LONG_S)
        adds_admitted(table, 10, 5)
        waiting = pool.submit(add, table, 50, 5, timeout_s=LONG_S)
        table.sample(1, 5)
        waiting.result(LONG_S)
        sample = pool.submit(table.sample, 5, 1, timeout_s=LONG_S)
        sample.result(LONG_S)


def test_a_sample_wakes_those_who_wait_to_add(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 10, 10))
    add(table, 0, 10, 10)
    guard = table._core.guard
    seen = guard.run(guard.bell.seen_locked)
    table.sample(1, 5)
    assert guard.run(guard.bell.seen_locked) != seen
    seen = guard.run(guard.bell.seen_locked)
    table.limiter = MinSize(5)
    assert guard.run(guard.bell.seen_locked) != seen


def test_waiting_ends_with_another_limiter(make_table: MakeTable) -> None:
    table = make_table(limiter=MinSize(500))
    add(table, 0, 10)
    with ThreadPoolExecutor(1) as pool:
        sample = pool.submit(table.sample, 2, 5, timeout_s=LONG_S)
        table.limiter = None
        assert len(sample.result(LONG_S)["actions"]) == 10


def test_waiting_is_logged(
    make_table: MakeTable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "_TELL_EVERY_S", 0.0)
    table = make_table(limiter=Queue(2), sampler=FifoSampleStrategy())
    add(table, 0, 5, 5)
    with caplog.at_level(logging.WARNING, "shmtable"):
        with pytest.raises(RateLimitedError):
            add(table, 2, 5, timeout_s=0.05)
        assert "add_sequence of table (unnamed): blocked for 0.0 s because 2 seq" in caplog.text
        caplog.clear()
        table.sample(1, 5)
        with pytest.raises(RateLimitedError):
            table.sample(2, 5, timeout_s=0.05)
    assert "sample of table (unnamed): blocked for 0.0 s because 1 sequences wait" in caplog.text


def test_what_is_logged_draws_nothing(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data comes between the look for it and the word about the waiting."""
    monkeypatch.setattr(wait, "_TELL_EVERY_S", 0.0)
    table = make_table(limiter=MinSize(10), sampler=WithoutReplacementSampleStrategy())
    add(table, 0, 5)
    monkeypatch.setattr(
        read, "_refuse_to_wait_alone", lambda *_: table.size() == 5 and add(table, 1, 5)
    )
    first, second = table.sample(5, 1, timeout_s=LONG_S), table.sample(5, 1)
    starts = [*first.points.starts.tolist(), *second.points.starts.tolist()]
    assert len(set(starts)) == 10, "one pass over 10 windows, none of them lost"
