"""Updating priorities: every shape of input, stale and forged points, files."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    LowestPriorityEjectionStrategy,
    MixtureSampleStrategy,
    PrioritizedSampleStrategy,
    PriorityError,
    UniformSampleStrategy,
)
from shmtable.index import fields as f
from shmtable.types import SamplePoints
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import MakeTable, add, narrow, points_at


def priorities(table: ArrayMemoryTable, identity: int) -> list[float]:
    """Of a sequence's transitions."""
    points = points_at(table, (identity, 0))
    start, length = int(points.starts[0]), int(points.lengths[0])
    found: list[float] = table.sampler.arrays["priority"][start : start + length].tolist()
    return found


def all_bytes(table: ArrayMemoryTable) -> dict[str, bytes]:
    """The strategies' arrays, as far as they are in use."""
    core = table._core
    reserved = {"row": f.RESERVED_ROWS, "slot": f.RESERVED_SLOTS}
    return {
        f"{role} {state.name}": strategy.arrays[state.name][
            : core.arena.words[reserved[state.per]] // state.every if state.per in reserved else 1
        ].tobytes()
        for role, strategy in (("sampler", core.sampler), ("ejector", core.ejector))
        for state in strategy.states()
    }


@pytest.fixture
def table(make_table: MakeTable) -> ArrayMemoryTable:
    """Three sequences of 5, 6 and 7 transitions, all of priority 1."""
    made = narrow(make_table, normalize="table", ejector=LowestPriorityEjectionStrategy())
    for identity in range(3):
        add(made, identity, 5 + identity)
    return made


SHAPES = {
    "windows": (np.array([0.25, 0.5]), [0.25, 1, 1, 1, 1], [1, 1, 0.5, 1, 1, 1, 1]),
    "column": (np.array([[0.25], [0.5]]), [0.25, 1, 1, 1, 1], [1, 1, 0.5, 1, 1, 1, 1]),
    "steps": (np.arange(6.0).reshape(2, 3), [0, 1, 2, 1, 1], [1, 1, 3, 4, 5, 1, 1]),
    "flat": (np.arange(6.0), [0, 1, 2, 1, 1], [1, 1, 3, 4, 5, 1, 1]),
    "flat column": (np.arange(6.0)[:, None], [0, 1, 2, 1, 1], [1, 1, 3, 4, 5, 1, 1]),
    "beyond the end": (np.arange(14.0), [0, 1, 2, 3, 4], [1, 1, 7, 8, 9, 10, 11]),
}
AS = {
    "array": lambda values: values,
    "float32": lambda values: values.astype(np.float32),
    "list": lambda values: values.tolist(),
    "tensor": torch.from_numpy,
    "graph": lambda values: torch.from_numpy(values).float().requires_grad_() * 1.0,
    "bfloat16": lambda values: torch.from_numpy(values).bfloat16(),
    "reversed": lambda values: values[::-1].copy()[::-1],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", AS)
def test_every_shape_and_kind_of_numbers(table: ArrayMemoryTable, shape: str, kind: str) -> None:
    values, first, third = SHAPES[shape]
    assert table.update_priorities(points_at(table, (0, 0), (2, 2)), AS[kind](values)) == 2
    assert priorities(table, 0) == first
    assert priorities(table, 1) == [1] * 6
    assert priorities(table, 2) == third
    assert wrong_with_derived(table) == []


def test_integers_and_a_single_number(table: ArrayMemoryTable) -> None:
    assert table.update_priorities(points_at(table, (1, 3)), 4) == 1
    assert table.update_priorities(points_at(table, (1, 4)), np.int8(3)) == 1
    assert table.update_priorities(points_at(table, (1, 5), (1, 0)), torch.tensor([2, 6])) == 2
    assert priorities(table, 1) == [6, 1, 1, 4, 3, 2]


def test_of_duplicates_the_last_one_counts(table: ArrayMemoryTable) -> None:
    random = np.random.default_rng(0)
    for steps in (1, 3):
        for _ in range(30):
            windows = [(2, int(offset)) for offset in random.integers(0, 6, 20)]
            values = random.uniform(0, 2, (20, steps))
            expected = np.array(priorities(table, 2))
            for (_, offset), new in zip(windows, values, strict=True):
                expected[offset : offset + steps] = new[: 7 - offset]
            assert table.update_priorities(points_at(table, *windows), values) == 20
            assert priorities(table, 2) == expected.tolist()
            assert wrong_with_derived(table) == []


def test_no_windows_at_all(table: ArrayMemoryTable) -> None:
    before = all_bytes(table)
    assert table.update_priorities(points_at(table, (0, 0)).at(slice(0)), []) == 0
    assert all_bytes(table) == before


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, float("nan")], r"at \(1,\) is nan; give numbers from 0 to 1e\+64"),
        ([float("inf"), 1], r"at \(0,\) is inf"),
        ([[1, 2], [3, -1e-9]], r"at \(1, 1\) is -1e-09"),
        ([1e65, 0], r"at \(0,\) is 1e\+65"),
        ([1, 2, 3], r"shape \(3,\) for 2 windows"),
        ([], r"shape \(0,\) for 2 windows"),
        (np.ones((4, 3)), r"shape \(4, 3\) for 2 windows"),
        (np.ones((1, 2)), r"shape \(1, 2\) for 2 windows"),
        (1.0, r"shape \(\) for 2 windows"),
        ("high", "are 'high', which are no numbers"),
        ([[1], [2, 3]], "which are no numbers"),
        (None, "is nan"),
    ],
)
def test_what_is_no_priority_changes_nothing(
    table: ArrayMemoryTable, values: Any, text: str
) -> None:
    points = points_at(table, (0, 0), (1, 1))
    before = all_bytes(table)
    with pytest.raises(PriorityError, match=text):
        table.update_priorities(points, values)
    assert all_bytes(table) == before


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (-1, "priority is -1.0; give numbers"),
        (float("nan"), "priority is nan"),
        ([1, 2, float("inf")], r"priority at \(2,\) is inf"),
        ([1, 2], r"priority has shape \(2,\), the sequence 3 transitions"),
        (np.ones((3, 1)), r"shape \(3, 1\)"),
        ("high", "no numbers"),
    ],
)
def test_sequences_with_no_such_priority_are_refused(
    table: ArrayMemoryTable, given: Any, text: str
) -> None:
    before = all_bytes(table)
    with pytest.raises(PriorityError, match=text):
        add(table, 9, 3, given)
    assert all_bytes(table) == before and table.identities().tolist() == [0, 1, 2]
    assert table.stats().writing_transitions == 0


def test_a_table_without_priorities_says_so(make_table: MakeTable) -> None:
    table = narrow(make_table, sampler=UniformSampleStrategy())
    add(table, 0, 5)
    points = table.sample(1, 1).points
    for attempt in (
        lambda: table.update_priorities(points, [1]),
        lambda: add(table, 1, 5, 1.0),
    ):
        with pytest.raises(PriorityError, match="sampler=PrioritizedSampleStrategy"):
            attempt()


def test_points_must_be_points(table: ArrayMemoryTable) -> None:
    with pytest.raises(PriorityError, match=r"points is a ndarray; give the \.points of a sample"):
        table.update_priorities(np.zeros(2), [1, 1])  # type: ignore[arg-type]


def test_stale_points_are_passed_over_and_counted(make_table: MakeTable, tmp_path: Path) -> None:
    table = narrow(make_table, maxlen=18)
    for identity in range(3):
        add(table, identity, 6)
    points = points_at(table, (0, 1), (1, 1), (2, 1))
    table.store(tmp_path / "t")
    add(table, 3, 6)  # in the room of the first, and in its slot
    assert points_at(table, (3, 0)).slots[0] == points.slots[0]
    assert table.update_priorities(points, [5, 6, 7]) == 2
    assert (priorities(table, 3)[1], priorities(table, 1)[1], priorities(table, 2)[1]) == (1, 6, 7)
    assert table.sampler.highest == 7
    table.remove(1)
    assert table.update_priorities(points, [50, 60, 8]) == 1
    assert table.sampler.highest == 8  # what is passed over is not even seen
    table.restore(tmp_path / "t")
    assert table.identities().tolist() == [0, 1, 2]
    assert table.update_priorities(points, [50, 60, 70]) == 0
    table.clear()
    for identity in range(3):
        add(table, identity, 6, 2.0)
    assert table.update_priorities(points, [50, 60, 70]) == 0
    assert [priorities(table, identity) for identity in range(3)] == [[2] * 6] * 3
    assert wrong_with_derived(table) == []


FORGED: dict[str, Any] = {
    "slots": [1, 2, 3, 0, -1, 40, 1 << 40],
    "offsets": [1, 4, 5, 6, 17, -1, -6, 1 << 40],
    "generations": [0, 1, 2, -1],
    "identities": [0, 1, 2, 9],
    "starts": [0, 1, 5, 17, 1 << 40, -3],
    "lengths": [0, 1, 5, 6, 7, 500, 1 << 40],
}


def test_forged_points_write_nowhere_else(table: ArrayMemoryTable) -> None:
    """Any fields at all: rows of other sequences keep what they have."""
    random = np.random.default_rng(0)
    good = points_at(table, (1, 2))
    applied = refused = 0
    for _ in range(600):
        fields = {
            field.name: getattr(good, field.name).copy()
            for field in dataclasses.fields(good)
            if field.name != "chances"
        }
        for name in random.choice(list(FORGED), random.integers(1, 4), replace=False):
            fields[name][0] = random.choice(FORGED[name])
        others = priorities(table, 0), priorities(table, 2)
        try:
            found = table.update_priorities(SamplePoints(**fields), random.uniform(0, 2, 9))
        except PriorityError:
            refused += 1
            continue
        applied += found
        if found:
            assert (fields["slots"][0], fields["identities"][0]) == (good.slots[0], 1)
        assert (priorities(table, 0), priorities(table, 2)) == others
    assert applied and refused
    assert wrong_with_derived(table) == []


def test_points_of_another_table_write_nowhere_else(
    table: ArrayMemoryTable, make_table: MakeTable
) -> None:
    other = narrow(make_table)
    add(other, 0, 18)  # the same slot, generation, identity and start, and longer
    assert table.update_priorities(points_at(other, (0, 0)), np.full(18, 0.5)) in (0, 1)
    assert priorities(table, 1) == [1] * 6 and priorities(table, 2) == [1] * 7
    third = narrow(make_table)
    add(third, 77, 5)
    assert table.update_priorities(points_at(third, (77, 0)), [0.25]) == 0
    assert wrong_with_derived(table) == []


def test_a_sequence_being_written_cannot_be_given_any(table: ArrayMemoryTable) -> None:
    core = table._core
    write = core.storage.write

    def meanwhile(start: int, slot: int, sequence: Any) -> None:
        points = core.view.points(np.array([slot]), np.array([0]))
        assert table.update_priorities(points, [0.5]) == 0
        assert wrong_with_derived(table) == []
        write(start, slot, sequence)

    core.storage.write = meanwhile  # type: ignore[method-assign]
    add(table, 5, 4)
    assert priorities(table, 5) == [1] * 4


def test_points_travel_to_other_processes(table: ArrayMemoryTable) -> None:
    points = pickle.loads(pickle.dumps(table.sample(4, 2).points))
    with pickle.loads(pickle.dumps(table)) as other:
        assert other.update_priorities(points, np.full((4, 2), 3.0)) == 4
    for identity, offset in zip(points.identities, points.offsets, strict=True):
        assert priorities(table, int(identity))[offset : offset + 2] == [3, 3]


# -- files -----------------------------------------------------------------------------------


def test_a_file_keeps_priorities(make_table: MakeTable, tmp_path: Path) -> None:
    table = narrow(make_table)
    random = np.random.default_rng(0)
    for identity in range(20):
        add(table, identity, 3 + identity % 5, random.uniform(0, 2, 3 + identity % 5))
    table.remove(4)
    table.update_priorities(points_at(table, (7, 1)), [30.0])
    table.update_priorities(points_at(table, (7, 1)), [0.5])
    kept = {i: priorities(table, i) for i in table.identities().tolist()}
    table.store(tmp_path / "t")
    other = narrow(make_table, maxlen=1000, alpha=0.9, normalize="table")
    add(other, 99, 50)
    other.restore(tmp_path / "t")
    assert {i: priorities(other, i) for i in other.identities().tolist()} == kept
    assert other.sampler.highest == 30  # though nothing has it any more
    assert other.sampler.alpha == 0.9
    assert wrong_with_derived(other) == []
    small = narrow(make_table, maxlen=40)
    with pytest.warns(UserWarning, match="newest"):
        small.restore(tmp_path / "t")
    newest = small.identities().tolist()
    assert {i: priorities(small, i) for i in newest} == {i: kept[i] for i in newest}
    assert wrong_with_derived(small) == []


def test_a_file_of_one_sampler_in_a_table_with_another(
    make_table: MakeTable, tmp_path: Path
) -> None:
    prioritized = narrow(make_table)
    uniform = narrow(make_table, sampler=UniformSampleStrategy())
    sequences = narrow(make_table, per="sequence")
    for table in (prioritized, uniform, sequences):
        add(table, 0, 5, None if table is uniform else 0.5)
    prioritized.store(tmp_path / "p")
    uniform.store(tmp_path / "u")
    with pytest.warns(UserWarning, match="what the other one kept of them is not"):
        uniform.restore(tmp_path / "p")
    assert uniform.sample(2, 2)["actions"].shape == (4,)
    with pytest.warns(UserWarning, match="what the other one kept of them is not"):
        prioritized.restore(tmp_path / "u")
    assert priorities(prioritized, 0) == [1] * 5  # as new data
    assert wrong_with_derived(prioritized) == []
    with pytest.warns(UserWarning, match="the sampler's priority has .* it starts afresh"):
        sequences.restore(tmp_path / "p")
    assert sequences.sampler.arrays["priority"][points_at(sequences, (0, 0)).slots] == [1.0]
    assert wrong_with_derived(sequences) == []


def test_a_mixture_keeps_what_its_members_do(make_table: MakeTable, tmp_path: Path) -> None:
    def mixed(*members: Any) -> ArrayMemoryTable:
        return narrow(make_table, sampler=MixtureSampleStrategy(list(enumerate(members, 1))))

    table = mixed(UniformSampleStrategy(), PrioritizedSampleStrategy())
    add(table, 0, 3, [0.5, 4, 2])
    table.store(tmp_path / "t")
    other = mixed(UniformSampleStrategy(), PrioritizedSampleStrategy())
    other.restore(tmp_path / "t")
    row = points_at(other, (0, 0)).starts[0]
    assert other.sampler.arrays["1.priority"][row : row + 3].tolist() == [0.5, 4, 2]
    # One of other members takes what it can.
    third = mixed(*[UniformSampleStrategy()] * 2, PrioritizedSampleStrategy())
    third.restore(tmp_path / "t")
    assert third.sampler.arrays["2.priority"][row : row + 3].tolist() == [1, 1, 1]
    for each in (other, third):
        assert wrong_with_derived(each) == []


@pytest.mark.parametrize("nonsense", [float("nan"), -1.0, float("inf"), 1e300])
def test_nonsense_in_a_file_is_not_believed(
    make_table: MakeTable, tmp_path: Path, nonsense: float
) -> None:
    table = narrow(make_table, ejector=LowestPriorityEjectionStrategy())
    for identity in range(4):
        add(table, identity, 6, 0.5)
    table.sampler.arrays["priority"][points_at(table, (2, 3)).starts] = nonsense
    table.ejector.arrays["priority"][points_at(table, (1, 0)).slots] = nonsense
    table.store(tmp_path / "t")
    other = narrow(make_table, maxlen=24, ejector=LowestPriorityEjectionStrategy())
    other.restore(tmp_path / "t")
    assert priorities(other, 2) == [0.5] * 3 + [1] + [0.5] * 2
    assert wrong_with_derived(other) == []
    assert len(other.sample(500, 1)["actions"]) == 500
    for identity in range(10, 13):
        add(other, identity, 6)
    assert other.identities().tolist() == [1, 10, 11, 12]  # as if it were new
