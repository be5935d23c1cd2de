"""A shard without Ray around it: what is left when its process ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import numpy as np

from shmtable import (
    ArenaNotFoundError,
    ArrayMemoryTable,
    DuplicateIdentityError,
    EndAlignedSampleStrategy,
    FifoEjectionStrategy,
    PrioritizedSampleStrategy,
    SampleToInsertRatio,
    SpecError,
    UniformSampleStrategy,
)
from shmtable.integrations.ray.pacing import split_limiter
from shmtable.integrations.ray.shard import Shard, drop
from tests.tables import small_columns, small_sequence

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from shmtable import FifoEjectionStrategy, UniformSampleStrategy
from shmtable.integrations.ray.shard import Shard
from tests.tables import small_columns, small_sequence

options = {
    "columns": small_columns(),
    "maxlen": 100,
    "sampler": UniformSampleStrategy(),
    "ejector": FifoEjectionStrategy(),
    "classes": (),
}
shard = Shard(sys.argv[1], options)
shard._table.add_sequence(1, small_sequence(1, 10))
"""


def test_a_shard_that_is_ended_in_good_order_leaves_its_table_to_the_next(
    unique_name: Callable[[], str],
) -> None:
    name = unique_name()
    subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=ROOT, check=True, timeout=100)
    try:
        with ArrayMemoryTable.attach(name) as table:
            assert table.size() == 10
            assert table.check() == []
    finally:
        drop(name)


# Several callers at once find the damage, each in its way. It is said once, on standard error.
DAMAGED = """
import threading
calls = [shard.describe, shard.examine, shard.identities, lambda: shard.draw(1, 1)] * 2
start = threading.Barrier(len(calls))

def call(method):
    start.wait()
    while True:  # until the process ends
        method()

threads = [threading.Thread(target=call, args=(method,)) for method in calls]
for thread in threads:
    thread.start()
threading.Event().wait(0.2)
shard._table._core.arrays.links[:].fill(1 << 40)
shard._table._core.arena.words[0] = 0
for thread in threads:
    thread.join()
"""


def test_a_damaged_shard_ends_once_and_gives_up_its_name(
    unique_name: Callable[[], str],
) -> None:
    name = unique_name()
    command = [sys.executable, "-c", PROGRAM + DAMAGED, name]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count(f"shard {name} is begun anew: ") == 1
    with pytest.raises(ArenaNotFoundError):
        ArrayMemoryTable.attach(name)


SWEPT = """
input()
shard.describe()
"""


def test_a_shard_whose_name_leads_elsewhere_ends_and_leaves_that_alone(
    unique_name: Callable[[], str], make_table: Callable[..., ArrayMemoryTable]
) -> None:
    name = unique_name()
    command = [sys.executable, "-c", PROGRAM + "print(flush=True)" + SWEPT, name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        drop(name)
        other = make_table(name=name)
        process.communicate("\n", timeout=100)
    assert process.returncode == 1
    with ArrayMemoryTable.attach(name) as found:
        assert found._core.arena.id == other._core.arena.id


def test_a_table_that_was_damaged_while_its_actor_was_away_is_begun_anew(
    make_table: Callable[..., ArrayMemoryTable],
    unique_name: Callable[[], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = unique_name()
    left = make_table(name=name)  # a writer has it open
    left.add_sequence(1, small_sequence(1, 10))
    left._core.arrays.row_slot[:].fill(77)
    options = {
        "columns": small_columns(),
        "maxlen": 100,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
        "classes": (),
    }
    shard = Shard(name, options)
    assert "what was left of it cannot be used" in caplog.text
    assert shard.describe()[1] == 0
    left.close()
    shard.close()


@pytest.fixture
def make_shard(unique_name: Callable[[], str]) -> Iterator[Callable[..., Shard]]:
    made = []

    def make(**overrides: Any) -> Shard:
        options: dict[str, Any] = {
            "columns": small_columns(),
            "maxlen": 100,
            "sampler": UniformSampleStrategy(),
            "ejector": FifoEjectionStrategy(),
            "classes": (),
            **overrides,
        }
        made.append(Shard(unique_name(), options))
        return made[-1]

    yield make
    for shard in made:
        shard.close()


def test_a_restore_that_fails_halfway_leaves_the_limiter_in_force(
    make_shard: Callable[..., Shard],
    make_table: Callable[..., ArrayMemoryTable],
    tmp_path: Path,
) -> None:
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    table = make_table()
    table.add_sequence(1, small_sequence(1, 10))  # in both, as nodes do not know of each other
    for path in paths:
        table.store(path)
    shard = make_shard(limiter=split_limiter(SampleToInsertRatio(1.0, 5, 20.0)))
    with pytest.raises(DuplicateIdentityError):
        shard.restore(paths, True)
    assert shard.grant(0).unused <= 1


def test_settings_are_those_of_the_sampler_that_draws(make_shard: Callable[..., Shard]) -> None:
    inner = PrioritizedSampleStrategy(beta=0.4)
    shard = make_shard(sampler=EndAlignedSampleStrategy(inner, 0.5))
    shard._table.add_sequence(1, small_sequence(1, 10))
    with pytest.raises(SpecError, match="betta is no setting of PrioritizedSampleStrategy"):
        shard.set_sampler({"beta": 0.7, "betta": 0.8})
    for name in ("sample", "arrays", "highest", "_tree", "states"):
        with pytest.raises(SpecError, match=f"{name} is no setting of PrioritizedSampleStrategy"):
            shard.set_sampler({name: 1.0})
    with pytest.raises(SpecError):  # of two, one cannot be
        shard.set_sampler({"alpha": 0.9, "beta": 2.0})
    assert shard._sampler.members[0].alpha == 0.6
    assert shard.draw(0, 1).offer.beta == 0.4
    shard.set_sampler({"beta": 0.7})
    assert shard.draw(0, 1).offer.beta == 0.7
    # New sequences get the highest priority that others' shards have seen.
    points = shard.draw(2, 1).points
    shard.update_priorities(tuple(points), np.ones((2, 1)), 6.0)
    shard._table.add_sequence(2, small_sequence(2, 10))
    assert shard._sampler.members[0].highest == 6.0


def test_what_is_begun_anew_begins_with_its_last_file(
    make_table: Callable[..., ArrayMemoryTable], unique_name: Callable[[], str], tmp_path: Path
) -> None:
    for number, name in enumerate(["first", "last"]):
        table = make_table()
        table.add_sequence(number, small_sequence(number, 10))
        table.store(tmp_path / name)
    options = {
        "columns": small_columns(),
        "maxlen": 100,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
        "classes": (),
    }
    first, last = str(tmp_path / "first"), str(tmp_path / "last")
    for noted, held in [(None, [0]), (lambda: None, [0]), (lambda: last, [1])]:
        shard = Shard(unique_name(), options, (), first, noted)
        assert shard.identities().tolist() == held
        shard.close()
