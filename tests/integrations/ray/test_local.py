"""What a process attaches of its own node."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

from collections.abc import Callable

from shmtable import ArenaNotFoundError, ArrayMemoryTable, DuplicateIdentityError
from shmtable.integrations.ray import local
from shmtable.integrations.ray.local import RANGE_BITS, Local, is_current
from shmtable.integrations.ray.shard import drop
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
Name = Callable[[], str]


def test_a_sequence_belongs_to_one_of_several_shards_by_its_identity(
    make_table: MakeTable, unique_name: Name
) -> None:
    names = [unique_name(), unique_name()]
    tables = [make_table(name=name) for name in names]
    here = Local(lambda: names, ())
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
    here = Local(lambda: names, ())
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
    here = Local(lambda: [name], ())
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

    here = Local(names, ())
    here.table().add_sequence(1, small_sequence(1, 3))
    assert answers == []
    here.close()


def test_a_node_without_a_shard_says_so() -> None:
    with pytest.raises(ArenaNotFoundError, match="no shard is on this node"):
        Local(lambda: None, ()).table()
