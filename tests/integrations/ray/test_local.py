"""What a process attaches of its own node."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import threading
from collections.abc import Callable, Sequence

from shmtable import (
    ArenaNotFoundError,
    ArrayMemoryTable,
    ClosedError,
    DuplicateIdentityError,
)
from shmtable.index import fields as f
from shmtable.integrations.ray import damage, local
from shmtable.integrations.ray.local import RANGE_BITS, Local, is_current
from shmtable.integrations.ray.shard import drop
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
Name = Callable[[], str]


def nobody(names: Sequence[str]) -> None:
    raise AssertionError(f"{names} are reported as damaged")


def test_a_sequence_belongs_to_one_of_several_shards_by_its_identity(
    make_table: MakeTable, unique_name: Name
) -> None:
    names = [unique_name(), unique_name()]
    tables = [make_table(name=name) for name in names]
    here = Local(lambda: names, (), nobody)
    for identity in (-3, 0, 1, 8):
        here.table(identity).add_sequence(identity, small_sequence(0, 3))
    assert tables[0].identities().tolist() == [-3, 0, 8]
    assert tables[1].identities().tolist() == [1]
    for identity in (-3, 1):
        with pytest.raises(DuplicateIdentityError):
            here.table(identity).add_sequence(identity, small_sequence(0, 3))
    here.close()


def test_made_up_identities_lead_to_all_shards_of_a_node(
    make_table: MakeTable, unique_name: Name
) -> None:
    names = [unique_name() for _ in range(4)]
    tables = [make_table(name=name) for name in names]
    here = Local(lambda: names, (), nobody)
    first = 12 << 18  # as a keeper gives them, one to each writer
    ranges = [-(1 << 62) - ((number + 1) << RANGE_BITS) for number in range(first, first + 8)]
    used = [here.table(identity)._core.arena.id for identity in ranges]
    assert sorted(used) == sorted(table._core.arena.id for table in tables for _ in range(2))
    here.close()


def test_a_table_that_has_taken_the_place_of_another_is_noticed(
    make_table: MakeTable, unique_name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LOOK_EVERY_S", 0.0)
    name = unique_name()
    old = make_table(name=name)
    here = Local(lambda: [name], (), nobody)
    here.table().add_sequence(1, small_sequence(1, 3))
    assert is_current(old)
    drop(name)
    assert not is_current(old)
    new = make_table(name=name)
    here.table().add_sequence(2, small_sequence(2, 3))
    assert old.identities().tolist() == [1]
    assert new.identities().tolist() == [2]
    here.close()


def test_shards_that_are_not_ready_yet_are_waited_for(
    make_table: MakeTable, unique_name: Name
) -> None:
    name = unique_name()
    answers = [[], [name], [name]]  # not ready; then ready, but its name is gone for a moment

    def names() -> list[str]:
        found = answers.pop(0)
        if len(answers) == 0:
            make_table(name=name)
        return found

    here = Local(names, (), nobody)
    here.table().add_sequence(1, small_sequence(1, 3))
    assert answers == []
    here.close()


def test_a_node_without_a_shard_says_so() -> None:
    with pytest.raises(ArenaNotFoundError, match="no shard is on this node"):
        Local(lambda: None, (), nobody).table()


class Slow:
    """A lock that is taken only after something else has happened."""

    def __init__(self, before: Callable[[], None]) -> None:
        self._before, self._lock = [before], threading.Lock()

    def __enter__(self) -> None:
        if self._before:
            self._before.pop()()
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def test_what_is_closed_beside_an_add_says_so(
    make_table: MakeTable, unique_name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LOOK_EVERY_S", 60.0)
    name = unique_name()
    make_table(name=name)
    here = Local(lambda: [name], (), nobody)
    monkeypatch.setattr(here, "_lock", Slow(here.close))
    with pytest.raises(ClosedError, match="the table is closed"):
        here.table()
    with pytest.raises(ClosedError, match="the table is closed"):
        here.table()  # by a thread that comes later


class Renewing:
    """A shard's actor, as a writer sees it: looks at its table, and begins a damaged one anew."""

    def __init__(self, name: str, make_table: MakeTable) -> None:
        self._name, self._make_table = name, make_table
        self.table = make_table(name=name)
        self.asked = 0

    def __call__(self, names: Sequence[str]) -> None:
        assert list(names) == [self._name]
        self.asked += 1
        if damage.walk(self.table):
            drop(self._name)
            self.table.close()
            self.table = self._make_table(name=self._name)


def garble_header(table: ArrayMemoryTable) -> None:
    table._core.arena.memory[:4096].zero_()


def garble_counters(table: ArrayMemoryTable) -> None:
    table._core.arena.words[f.SLOT_HIGH] = 1 << 50


def garble_index(table: ArrayMemoryTable) -> None:
    table._core.arrays.links[:].fill(1 << 40)


@pytest.mark.parametrize("garble", [garble_header, garble_counters, garble_index])
def test_a_writer_that_finds_damage_has_it_looked_at_and_adds_to_the_next_table(
    make_table: MakeTable,
    unique_name: Name,
    monkeypatch: pytest.MonkeyPatch,
    garble: Callable[[ArrayMemoryTable], None],
) -> None:
    monkeypatch.setattr(local, "_LOOK_EVERY_S", 0.0)
    name = unique_name()
    shard = Renewing(name, make_table)
    here = Local(lambda: [name], (), shard)
    here.add(1, lambda table: table.add_sequence(1, small_sequence(1, 3)))
    garble(shard.table)
    here.add(2, lambda table: table.add_sequence(2, small_sequence(2, 3)))
    assert shard.asked == 1
    assert shard.table.identities().tolist() == [2]
    here.close()


def test_a_process_that_comes_to_a_damaged_table_has_it_looked_at(
    make_table: MakeTable, unique_name: Name
) -> None:
    name = unique_name()
    shard = Renewing(name, make_table)
    garble_counters(shard.table)
    here = Local(lambda: [name], (), shard)
    here.table().add_sequence(1, small_sequence(1, 3))
    assert shard.asked == 1
    assert shard.table.identities().tolist() == [1]
    here.close()


def test_what_a_caller_does_wrong_is_told_to_the_caller_only(
    make_table: MakeTable, unique_name: Name
) -> None:
    name = unique_name()
    table = make_table(name=name)
    here = Local(lambda: [name], (), nobody)
    here.add(1, lambda table: table.add_sequence(1, small_sequence(1, 3)))
    with pytest.raises(DuplicateIdentityError):
        here.add(1, lambda table: table.add_sequence(1, small_sequence(1, 3)))
    with pytest.raises(
        ZeroDivisionError
    ):  # what no table raises: worth a walk, which finds nothing
        here.add(1, lambda table: 1 // 0)  # type: ignore[func-returns-value]
    assert table.identities().tolist() == [1]
    here.close()


def test_damage_that_the_shard_does_not_see_is_raised(
    make_table: MakeTable, unique_name: Name
) -> None:
    name = unique_name()
    table = make_table(name=name)
    asked: list[str] = []
    here = Local(lambda: [name], (), asked.extend)
    links = table._core.arrays.links
    sound = links[:].copy()

    def adding(_: ArrayMemoryTable) -> None:
        links[:].fill(1 << 40)
        raise IndexError("out of it")

    with pytest.raises(IndexError, match="out of it"):
        here.add(1, adding)
    links[:] = sound
    assert asked == [name]
    here.close()
