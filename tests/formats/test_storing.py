"""Storing and restoring while others use the table, are killed, or the disk is full."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    Column,
    FileDamagedError,
    LockTimeoutError,
    UniformEjectionStrategy,
)
from shmtable.formats import verify
from shmtable.formats.atomic import replacing
from tests.formats.crafting import content_of
from tests.multiprocess.recipe import Crew, link
from tests.tables import small_columns, small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]
LENGTH = 20


def filled(table: ArrayMemoryTable, count: int) -> ArrayMemoryTable:
    for identity in range(count):
        table.add_sequence(identity, small_sequence(identity, LENGTH))
    return table


def assert_sound(table: ArrayMemoryTable) -> None:
    """Every sequence is one of :func:`small_sequence`, whole."""
    for identity in table.identities().tolist():
        found, expected = table.sequence(identity), small_sequence(identity, LENGTH)
        for name, rows in expected.items():
            np.testing.assert_array_equal(found[name].numpy(), rows)


def add_for_ever(table: ArrayMemoryTable, first: int) -> None:
    link().tell("adding")
    identity = first
    while True:
        identity += 1
        table.add_sequence(identity, small_sequence(identity, LENGTH))


@pytest.mark.parametrize("ejector", [None, UniformEjectionStrategy()], ids=["fifo", "uniform"])
def test_writers_go_on(make_table: MakeTable, tmp_path: Path, ejector: Any) -> None:
    options = {} if ejector is None else {"ejector": ejector}
    table = filled(make_table(maxlen=2000, **options), 150)
    other = make_table(maxlen=2000, **options)
    with Crew() as crew:
        member = crew.add(add_for_ever, table, 1000)
        crew.go()
        assert member.hear() == "adding"
        for _ in range(15):
            added = table.stats().sequences_added
            table.store(tmp_path / "t")
            other.restore(tmp_path / "t")
            assert_sound(other)
            assert other.check() == []
            while table.stats().sequences_added == added:
                pass  # it goes on, or the test would hang
        member.kill()
        member.join()


def test_sequences_that_leave_while_they_are_copied(
    make_table: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between writing and validating, and before: both are left out, and the rest is whole."""
    from shmtable.formats.archive_writer import MemberWriter

    table, other = filled(make_table(), 30), make_table()
    write = MemberWriter.write
    leaving = iter([[3, 4], [5], [29]])

    def removing(self: MemberWriter, views: Any, at: int) -> int:
        done = write(self, views, at)
        if self.name == "obs.npy":
            for identity in next(leaving, []):
                table.remove(identity)
        return done

    monkeypatch.setattr(MemberWriter, "write", removing)
    table.store(tmp_path / "t")
    assert verify(str(tmp_path / "t.zip")).sequences == 26
    other.restore(tmp_path / "t")
    assert other.identities().tolist() == [k for k in range(30) if k not in (3, 4, 5, 29)]
    assert_sound(other)
    table.store(tmp_path / "t")  # fixed now, nobody leaves
    assert verify(str(tmp_path / "t.zip")).sequences == 26


def sample_for_ever(table: ArrayMemoryTable) -> Any:
    link().tell("sampling")
    while not link().told():
        findings = torn_windows(table.sample(16, 3), 3)
        if findings:
            return findings
    return []


def test_others_sample_while_it_is_restored(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table(), 40)
    table.store(tmp_path / "t")
    with Crew() as crew:
        for _ in range(2):
            crew.add(sample_for_ever, table)
        crew.go()
        for member in crew.members:
            assert member.hear() == "sampling"
        for _ in range(20):
            table.restore(tmp_path / "t")
            table.add_sequence(1000, small_sequence(1000, LENGTH))
        for member in crew.members:
            member.tell("enough")
        assert crew.results() == [[], []]


def test_handles_from_before_are_stale(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table(), 40)
    before = table.sample(64, 2).points
    table.store(tmp_path / "t")
    table.restore(tmp_path / "t")
    generations = table._core.arrays.slots[before.slots, 1]
    states = table._core.arrays.slots[before.slots, 0]
    assert ((generations != before.generations) | (states == 0)).all()


def store_for_ever(table: ArrayMemoryTable, path: str) -> None:
    link().tell("storing")
    while True:
        table.store(path)


def test_killed_at_any_moment_the_previous_file_is_whole(
    make_table: MakeTable, tmp_path: Path
) -> None:
    table, other = filled(make_table(maxlen=20_000), 900), make_table(maxlen=20_000)
    path = tmp_path / "t"
    table.store(path)
    chance = random.Random(1)
    unfinished = 0
    for _ in range(50):
        with Crew() as crew:
            member = crew.add(store_for_ever, table, str(path))
            crew.go()
            assert member.hear() == "storing"
            time.sleep(chance.random() * 0.02)  # any moment will do
            member.kill()
            member.join()
        assert verify(f"{path}.zip").sequences == 900
        unfinished += any(name.endswith(".partial") for name in os.listdir(tmp_path))
    assert unfinished > 5  # or it was always killed between two files
    other.restore(path)
    assert_sound(other)
    other.store(path)
    assert sorted(os.listdir(tmp_path)) == ["t.zip", "t.zip.lock"]


def test_no_space_keeps_the_file_there_is(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table(), 40)
    table.store(tmp_path / "t")
    before = (tmp_path / "t.zip").read_bytes()
    table.remove(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        with pytest.raises(OSError) as caught:
            table.store(tmp_path / "t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "t.zip").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["t.zip", "t.zip.lock"]


def test_damage_in_the_last_row_is_found_before_anything_is_seen(
    make_table: MakeTable, tmp_path: Path
) -> None:
    columns = [Column("actions", (1000,), "float64")]
    table = make_table(columns=columns, maxlen=5000)
    for identity in range(40):
        table.add_sequence(identity, {"actions": np.full((50, 1000), identity, np.float64)})
    table.store(tmp_path / "t")
    other = make_table(columns=columns, maxlen=5000)
    other.add_sequence(7, {"actions": np.ones((3, 1000))})
    before = content_of(other)
    path = tmp_path / "t.zip"
    with open(path, "r+b") as file:  # the last sequence's last number
        place = 50 * 40 * 1000 * 8 - 8
        file.seek(place)
        file.write(b"\1")
    with pytest.raises(FileDamagedError, match="actions.npy.*checksum"):
        other.restore(tmp_path / "t")
    assert content_of(other) == before
    assert other.check() == []
    assert other.stats().writing_transitions == 0


MOST_EXTRA_BYTES = 64 << 20


@pytest.fixture
def large(make_table: MakeTable) -> Iterator[ArrayMemoryTable]:
    """About 190 MB in 100 sequences, three of them of 20 MB."""
    columns = [Column("obs", (84, 84), "uint8"), *small_columns()[2:]]
    table = make_table(columns=columns, maxlen=60_000)
    rows = np.zeros((3000, 84, 84), np.uint8)
    for identity in range(100):
        length = 3000 if identity in (0, 50, 99) else 180
        obs = rows[:length]
        table.add_sequence(
            identity,
            {"obs": obs, "actions": np.arange(length), "rewards": np.ones(length, np.float32)},
        )
    yield table


def test_memory_does_not_grow_with_the_table(large: ArrayMemoryTable, tmp_path: Path) -> None:
    assert large.stats().bytes_payload > 150e6
    for call in (large.store, large.restore):
        tracemalloc.start()
        before = _private_bytes()
        peaks: list[int] = []

        def watch(done: int, total: int, peaks: list[int] = peaks) -> None:
            peaks.append(_private_bytes())

        call(tmp_path / "t", progress=watch)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(peaks) > 20
        assert max(peaks) - before < MOST_EXTRA_BYTES
        assert traced < MOST_EXTRA_BYTES


def _private_bytes() -> int:
    """Memory of this process alone, shared memory (the table itself) not counted."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["RssAnon"].split()[0]) * 1024


def test_two_at_a_time_wait_for_each_other(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table(), 40)
    with Crew() as crew:
        for _ in range(3):
            crew.add(_store_often, table, str(tmp_path / "t"))
        crew.go()
        crew.results()
    assert verify(str(tmp_path / "t.zip")).sequences == 40
    assert sorted(os.listdir(tmp_path)) == ["t.zip", "t.zip.lock"]


def _store_often(table: ArrayMemoryTable, path: str) -> None:
    for _ in range(5):
        assert table.store(path)


def test_a_path_that_another_process_is_writing(tmp_path: Path) -> None:
    path = str(tmp_path / "t.zip")
    with replacing(path):
        with pytest.raises(
            LockTimeoutError,
            match=rf"t.zip: process {os.getpid()} \(.*python.*\) has been writing it for 0.05 s; "
            "wait for it, or store to another path",
        ):
            with replacing(path, timeout_s=0.05):
                pass
