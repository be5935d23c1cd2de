"""Adding: what comes in is what comes out, whatever form it has; replacing; batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    DuplicateIdentityError,
    NextNElementWrapper,
    SharedMemoryError,
    TagColumn,
    VirtualColumn,
)
from tests.table.snapshots import content, everything
from tests.tables import small_columns, small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]

EXTREME_IDENTITIES = [0, -1, 1, 2**63 - 1, -(2**63), 2**32, -(2**32)]


def values(sequence: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: np.asarray(column).tolist() for name, column in sequence.items()}


@pytest.mark.parametrize("length", [1, 2, 63, 1000])
def test_a_sequence_comes_back_as_it_was_added(make_table: MakeTable, length: int) -> None:
    table = make_table()
    table.add_sequence(4, small_sequence(4, length))
    assert content(table) == {4: values(small_sequence(4, length))}
    assert table.size() == len(table) == length


def test_columns_come_back_in_their_own_types(make_table: MakeTable) -> None:
    table = make_table()
    table.add_sequence(4, small_sequence(4, 3))
    kinds = {name: (c.dtype, tuple(c.shape)) for name, c in table.sequence(4).items()}
    assert kinds == {
        "obs": (torch.float32, (4, 3)),
        "actions": (torch.int64, (3,)),
        "rewards": (torch.float32, (3,)),
    }


def test_any_identity_that_is_an_int64(make_table: MakeTable) -> None:
    table = make_table()
    given = [*EXTREME_IDENTITIES, np.int32(77), torch.tensor(78), True + 1]
    for nth, identity in enumerate(given):
        table.add_sequence(identity, small_sequence(nth, 2))
    assert table.identities().tolist() == [int(identity) for identity in given]
    for nth, identity in enumerate(given):
        assert table.sequence(identity)["obs"][0, 0] == nth
    for identity in given[::2]:
        table.remove(identity)
    assert table.identities().tolist() == [int(identity) for identity in given[1::2]]


def test_lists_tensors_and_arrays_are_the_same(make_table: MakeTable) -> None:
    table = make_table()
    arrays = small_sequence(9, 4)
    table.add_sequence(1, arrays)
    table.add_sequence(2, {name: value.tolist() for name, value in arrays.items()})
    table.add_sequence(3, {name: torch.from_numpy(value) for name, value in arrays.items()})
    table.add_sequence(4, {name: list(value) for name, value in arrays.items()})
    learnt = torch.from_numpy(arrays["obs"]).clone().requires_grad_()
    table.add_sequence(5, {**arrays, "obs": learnt, "rewards": arrays["rewards"][::-1][::-1]})
    assert len({str(sequence) for sequence in content(table).values()}) == 1


def test_what_the_caller_does_afterwards_changes_nothing(make_table: MakeTable) -> None:
    table = make_table()
    given = small_sequence(1, 5)
    table.add_sequence(1, given)
    before = content(table)
    for column in given.values():
        column[:] = 0
    table.sequence(1)["obs"][:] = 0
    table.sample(3, 2)["obs"][:] = 0
    assert content(table) == before


def test_one_row_beyond_the_last_is_kept_for_any_column(make_table: MakeTable) -> None:
    # The observation after the last action, as many collect it.
    table = make_table(columns=[Column("obs", (2,), "float32"), Column("actions", (), "int8")])
    with_last = {"obs": np.arange(12).reshape(6, 2), "actions": np.arange(5)}
    without = {"obs": np.arange(10).reshape(5, 2), "actions": np.arange(5)}
    table.add_sequence(1, with_last)
    table.add_sequence(2, without)
    assert content(table) == {1: values(with_last), 2: values(without)}
    assert table.size() == 10
    assert len(table.sample(20, 5)["obs"]) == 100


def test_a_sequence_read_back_can_be_added_again(make_table: MakeTable) -> None:
    columns = [
        *small_columns(),
        Column("noise", (2,), "float16"),
        TagColumn("kind", (2,), "int16"),
        VirtualColumn("third", (), "float32", "rewards", NextNElementWrapper.with_n(3)),
    ]
    first, second = make_table(columns=columns), make_table(columns=columns)
    sequence = {**small_sequence(5, 7), "noise": np.ones((8, 2), np.float16), "kind": [3, 4]}
    sequence["rewards"] = np.arange(10, dtype=np.float32)
    first.add_sequence(5, sequence)
    for identity in first.identities().tolist():
        second.add_sequence(identity, first.sequence(identity))
    assert content(second) == content(first) == {5: values(sequence)}


def test_tags_stay_with_their_sequence(make_table: MakeTable) -> None:
    table = make_table(columns=[*small_columns(), TagColumn("kind", (2,), "int16")], maxlen=100)
    for identity in range(60):
        table.add_sequence(identity, {**small_sequence(identity, 7), "kind": [identity, -identity]})
    for identity in table.identities().tolist():
        assert table.sequence(identity)["kind"].tolist() == [identity, -identity]
    sample = table.sample(200, 3)
    assert sample["kind"].shape == (200, 2)
    assert torch.equal(sample["kind"][:, 0].float(), sample["obs"][::3, 0])
    assert torch.equal(sample["kind"][:, 1], -sample["kind"][:, 0])


@pytest.mark.parametrize("tag", [7, [7], [7, 8, 9], np.array([7, 1]), torch.tensor(7)])
def test_of_several_values_for_a_tag_the_first_counts(make_table: MakeTable, tag: Any) -> None:
    table = make_table(columns=[Column("actions", (), "int8"), TagColumn("kind", (), "int64")])
    table.add_sequence(1, {"actions": [1, 2], "kind": tag})
    assert table.sequence(1)["kind"].tolist() == 7


# -- replacing ---------------------------------------------------------------------------------


def test_replacing_puts_the_new_sequence_in_the_old_ones_place(make_table: MakeTable) -> None:
    table = make_table(on_duplicate="replace")
    for identity in (1, 2, 3):
        table.add_sequence(identity, small_sequence(identity, 5))
    table.add_sequence(2, small_sequence(22, 8))
    assert table.identities().tolist() == [1, 3, 2]
    assert content(table)[2] == values(small_sequence(22, 8))
    assert table.size() == 18
    assert not table.full()
    assert table.stats().sequences_removed == 1


def test_a_replaced_table_full_of_one_sequence(make_table: MakeTable) -> None:
    table = make_table(on_duplicate="replace", maxlen=50, max_sequences=1)
    for generation in range(10):
        table.add_sequence(1, small_sequence(generation, 50 - generation))
        assert content(table) == {1: values(small_sequence(generation, 50 - generation))}
        assert table.check() == []


def test_a_batch_may_replace_and_repeat(make_table: MakeTable) -> None:
    table = make_table(on_duplicate="replace")
    table.add_sequence(1, small_sequence(1, 5))
    table.add_sequences(
        (identity, small_sequence(10 * identity + nth, 4 + nth))
        for nth, identity in enumerate((2, 1, 2, 1, 3))
    )
    assert table.identities().tolist() == [2, 1, 3]
    assert content(table)[2] == values(small_sequence(22, 6))
    assert content(table)[1] == values(small_sequence(13, 7))


def test_an_identity_that_has_left_may_come_again(make_table: MakeTable) -> None:
    table = make_table(maxlen=10)
    for _ in range(5):
        table.add_sequence(1, small_sequence(1, 6))
        table.add_sequence(2, small_sequence(2, 6))
        assert table.identities().tolist() == [2]
        table.remove(2)


# -- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 200])
def test_a_batch_is_a_run_of_adds(make_table: MakeTable, count: int) -> None:
    one_by_one, at_once = make_table(), make_table()
    sequences = [
        (identity, small_sequence(identity, 1 + identity % 9)) for identity in range(count)
    ]
    for identity, sequence in sequences:
        one_by_one.add_sequence(identity, sequence)
    at_once.add_sequences(sequences)
    assert content(at_once) == content(one_by_one)
    assert list(content(at_once)) == at_once.identities().tolist()


def test_a_batch_larger_than_the_table_leaves_its_end(make_table: MakeTable) -> None:
    table = make_table(maxlen=40)
    table.add_sequences((identity, small_sequence(identity, 7)) for identity in range(150))
    assert table.identities().tolist() == [145, 146, 147, 148, 149]
    assert torn_windows(table.sample(50, 7), 7) == []


def test_a_batch_of_sequences_each_as_large_as_the_table(make_table: MakeTable) -> None:
    table = make_table(maxlen=40)
    table.add_sequences((identity, small_sequence(identity, 40)) for identity in range(5))
    assert content(table) == {4: values(small_sequence(4, 40))}


def test_a_generator_that_fails_half_way_adds_nothing(make_table: MakeTable) -> None:
    table = make_table()
    table.add_sequence(0, small_sequence(0, 5))
    before = everything(table)

    def sequences() -> Iterator[tuple[int, dict[str, Any]]]:
        yield 1, small_sequence(1, 5)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        table.add_sequences(sequences())
    assert everything(table) == before


def test_a_table_that_is_used_while_a_batch_is_collected(make_table: MakeTable) -> None:
    # The generator runs before anything is held.
    table = make_table()

    def sequences() -> Iterator[tuple[int, dict[str, Any]]]:
        for identity in range(3):
            table.add_sequence(100 + identity, small_sequence(identity, 5))
            yield identity, small_sequence(identity, table.size())

    table.add_sequences(sequences())
    assert table.identities().tolist() == [100, 101, 102, 0, 1, 2]


def test_an_identity_added_while_its_batch_was_collected(make_table: MakeTable) -> None:
    table = make_table()

    def sequences() -> Iterator[tuple[int, dict[str, Any]]]:
        yield 1, small_sequence(1, 5)
        table.add_sequence(1, small_sequence(1, 4))

    with pytest.raises(DuplicateIdentityError, match="identity 1 is already in the table"):
        table.add_sequences(sequences())
    assert table.size() == 4


def test_memory_that_cannot_be_had_changes_nothing(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(columns=[Column("actions", (64,), "float64")], maxlen=100_000)
    table.add_sequence(1, {"actions": np.ones((5, 64))})
    before = everything(table)

    def refuse(spans: object, blocks: object) -> None:
        raise SharedMemoryError("no memory left")

    with monkeypatch.context() as patched:
        patched.setattr(table._core.arena, "reserve", refuse)
        with pytest.raises(SharedMemoryError):
            table.add_sequence(2, {"actions": np.ones((50_000, 64))})
    assert everything(table) == before
    table.add_sequence(2, {"actions": np.ones((6000, 64))})
    assert table.size() == 6005
