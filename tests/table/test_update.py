"""Writing values back into the windows of a sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    LockReentryError,
    SamplePoints,
    SequenceError,
    SpecError,
    TableSerializationVersion,
    TagColumn,
)
from shmtable.index import fields as f
from shmtable.protocols.legacy import _Sequences
from shmtable.protocols.store import _Target
from tests.table.snapshots import content
from tests.tables import small_columns, small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


def filled(make_table: MakeTable, *lengths: int, **options: Any) -> ArrayMemoryTable:
    table = make_table(**options)
    for identity, length in enumerate(lengths):
        table.add_sequence(identity, small_sequence(identity, length))
    return table


def window(table: ArrayMemoryTable, identity: int, offset: int) -> SamplePoints:
    """The points of one window, as if it had been drawn."""
    core = table._core
    slot = next(
        s for s in core.view.live_slots().tolist() if core.arrays.slots[s, f.IDENTITY] == identity
    )
    return core.view.points(np.array([slot]), np.array([offset]))


def joined(*parts: SamplePoints) -> SamplePoints:
    return SamplePoints.joined(parts)


@pytest.mark.parametrize("as_batch", [True, False])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, lambda values: values])
def test_windows_are_written(make_table: MakeTable, kind: Any, as_batch: bool) -> None:
    table = filled(make_table, 5, 7, 6)
    before = content(table)
    points = joined(window(table, 1, 2), window(table, 2, 0))
    values = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    flat = kind(values if as_batch else sum(values, []))
    assert table.update(points, "rewards", flat) == 2
    assert table.sequence(1)["rewards"].tolist() == [1, 2, -1, -2, -3, 6, 7]
    assert table.sequence(2)["rewards"].tolist() == [-4, -5, -6, 5, 6, 7]
    for identity, name in ((0, "rewards"), (1, "obs"), (2, "actions")):
        assert table.sequence(identity)[name].tolist() == before[identity][name]
    assert table.check() == []


def test_what_was_sampled_is_written_back(make_table: MakeTable) -> None:
    columns = [*small_columns(), Column("state", (2, 3), "float16")]
    table = make_table(columns=columns)
    for identity in range(4):
        table.add_sequence(
            identity, {**small_sequence(identity, 20), "state": np.zeros((20, 2, 3))}
        )
    sample = table.sample(16, 5)
    assert sample.points is not None
    marks = sample["actions"].view(16, 5, 1, 1).expand(16, 5, 2, 3) % 1000
    assert table.update(sample.points, "state", marks) == 16
    for identity in range(4):
        found = table.sequence(identity)
        wanted = found["actions"] % 1000
        written = found["state"] != 0
        assert (found["state"] == wanted[:, None, None])[written].all()
    # Only the first steps of each window.
    assert table.update(sample.points, "state", torch.ones(16, 1, 2, 3)) == 16


def test_of_windows_that_overlap_the_last_counts(make_table: MakeTable) -> None:
    table = filled(make_table, 6)
    points = joined(window(table, 0, 0), window(table, 0, 2), window(table, 0, 1))
    table.update(points, "rewards", np.repeat([[-1.0], [-2.0], [-3.0]], 3, axis=1))
    assert table.sequence(0)["rewards"].tolist() == [-1, -3, -3, -3, -2, 5]


def test_what_has_left_is_ignored(make_table: MakeTable) -> None:
    table = filled(make_table, 6, 6, 6)
    points = joined(*(window(table, identity, 1) for identity in range(3)))
    table.remove(1)
    table.add_sequence(9, small_sequence(9, 6))  # in the same slot
    assert table.update(points, "rewards", np.full((3, 2), -1.0)) == 2
    assert -1 not in table.sequence(9)["rewards"]
    table.clear()
    assert table.update(points, "rewards", np.full((3, 2), -1.0)) == 0


def test_a_padded_window_ends_with_its_sequence(make_table: MakeTable) -> None:
    table = filled(make_table, 3, 5, pad="zero")
    points = joined(window(table, 0, 0), window(table, 1, 0))
    assert table.update(points, "rewards", -np.ones((2, 5))) == 2
    assert table.sequence(0)["rewards"].tolist() == [-1] * 3
    assert table.sequence(1)["rewards"].tolist() == [-1] * 5


def test_large_updates_take_several_sections(make_table: MakeTable) -> None:
    table = make_table(columns=[Column("actions", (256,), "int64")])
    for identity in range(10):
        table.add_sequence(identity, {"actions": np.zeros((50, 256), np.int64)})
    points = joined(*(window(table, identity, 10) for identity in range(10)))
    before = table._core.arena.words[f.UPDATES]
    values = np.arange(10)[:, None, None] * np.ones((40, 256), np.int64)
    assert table.update(points, "actions", values.astype(np.int64)) == 10
    assert table._core.arena.words[f.UPDATES] == before + 10  # one window is more than a section's
    for identity in range(10):
        found = table.sequence(identity)["actions"][:, 0]
        assert found.tolist() == [0] * 10 + [identity] * 40


@pytest.mark.parametrize(
    ("name", "values", "error", "told"),
    [
        ("rewards", np.zeros((2, 3)), SequenceError, "values have shape .2, 3. for 1 windows"),
        ("rewards", np.zeros(0), SequenceError, "values have shape .0,. for 1 windows"),
        ("rewards", np.float32(1), SequenceError, "pass an array of shape .windows, steps. or"),
        ("rewards", np.zeros((1, 2), complex), SequenceError, "column 'rewards'"),
        ("rewards", [["a", "b"]], SequenceError, "column 'rewards'"),
        ("obs", np.zeros((1, 2)), SequenceError, "column 'obs': values have shape"),
        ("actions", np.array([[0.5, 1.0]]), SequenceError, "column 'actions'"),
        ("rewards", np.zeros((1, 6)), SpecError, "starts at 1 of a sequence of 6"),
        ("next_obs", np.zeros((1, 2, 3)), SpecError, "'next_obs': .* computed when sampling"),
        ("who", np.zeros((1, 2)), SpecError, "'who': .* one value per sequence"),
        ("nix", np.zeros((1, 2)), SpecError, "'nix': .* no such column; give one of obs, act"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    make_table: MakeTable, name: str, values: Any, error: type[Exception], told: str
) -> None:
    table = make_table(columns=[*small_columns(), TagColumn("who", (), "int64")])
    table.add_sequence(0, {**small_sequence(0, 6), "who": 3})
    before = content(table)
    with pytest.raises(error, match=told):
        table.update(window(table, 0, 1), name, values)
    assert content(table) == before
    assert table._core.arena.words[f.UPDATES] == 0


def test_points_that_are_none(make_table: MakeTable) -> None:
    table = filled(make_table, 6)
    with pytest.raises(SpecError, match="points is a list"):
        table.update([1, 2], "rewards", [1.0])  # type: ignore[arg-type]
    points = window(table, 0, 0)
    for slot in (-1, 0, 10**9):
        points.slots[:] = slot
        with pytest.raises(SpecError, match="points of a sample of this table"):
            table.update(points, "rewards", [1.0])
    points = window(table, 0, -1)
    with pytest.raises(SpecError, match="starts at -1"):
        table.update(points, "rewards", [1.0])
    assert table.update(joined(window(table, 0, 0)), "rewards", [1.0]) == 1


class _InTheMiddle:
    """Calls something once, between a copy and what is made of it."""

    def __init__(self, storage: Any, act: Callable[[], Any]) -> None:
        self._storage = storage
        self._act: Callable[[], Any] | None = act

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if name not in ("gather_copied", "read"):
            return found

        def after(*arguments: Any, **more: Any) -> Any:
            copied = found(*arguments, **more)
            if self._act is not None:
                act, self._act = self._act, None
                act()
            return copied

        return after


@pytest.mark.parametrize("what", ["sample", "sequence"])
def test_a_copy_that_met_an_update_is_made_again(make_table: MakeTable, what: str) -> None:
    """Obs are copied before the update and actions after it: torn, if nobody notices."""
    table = filled(make_table, 6)
    newer = small_sequence(900, 6)
    points = window(table, 0, 0)

    def act() -> None:
        for name in ("obs", "actions", "rewards"):
            table.update(points, name, newer[name][None, :6])

    core = table._core
    core.storage = _InTheMiddle(core.storage, act)  # type: ignore[assignment]
    if what == "sample":
        found = table.sample(4, 5)
        assert set((found["actions"] // 1000).tolist()) == {900}
        assert set(found["obs"][:, 0].tolist()) == {900}
    else:
        sequence = table.sequence(0)
        assert sequence["actions"].tolist() == newer["actions"].tolist()
        assert sequence["obs"][:6].tolist() == newer["obs"][:6].tolist()


@pytest.mark.parametrize("rounds", [1, 100])
@pytest.mark.parametrize("version", list(TableSerializationVersion))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_storing_beside_updates_keeps_every_sequence_as_it_is(
    make_table: MakeTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: TableSerializationVersion,
    rounds: int,
) -> None:
    """Whatever was updated while it was copied is copied again, and in the end under the lock."""
    table = filled(make_table, 6, 7, 8)
    points = joined(*(window(table, identity, 0) for identity in range(3)))
    made = 0

    def and_update(copy: Callable[..., Any]) -> Callable[..., Any]:
        def copied(*arguments: Any) -> Any:
            nonlocal made
            result = copy(*arguments)
            try:
                if made < rounds:
                    table.update(points, "rewards", np.full((3, 6), -1.0 - made))
                    made += 1
            except LockReentryError:
                pass  # this copy is made where nobody can update
            return result

        return copied

    for cls, name in ((_Target, "write"), (_Sequences, "_copy")):
        monkeypatch.setattr(cls, name, and_update(getattr(cls, name)))
    before = content(table)
    table.store(str(tmp_path / "file"), version)
    assert made >= (1 if rounds == 1 else 4)
    other = make_table()
    other.restore(str(tmp_path / "file"))
    found = content(other)
    assert len(found) == 3
    for rows, old in zip(found.values(), before.values(), strict=True):
        # One update for all of it, and not the first, which came in the middle of the copy.
        assert len(set(rows["rewards"][:6])) == 1
        assert rows["rewards"][0] <= -1
        assert rows["rewards"][6:] == old["rewards"][6:]
        assert rows["obs"] == old["obs"]
