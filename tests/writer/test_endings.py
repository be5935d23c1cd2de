"""How an episode ended is kept; tags, priorities and waiting are passed on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    DictObsMemoryTable,
    FifoSampleStrategy,
    PrioritizedSampleStrategy,
    PriorityError,
    Queue,
    RateLimitedError,
    SequenceError,
    SyntheticDones,
    TagColumn,
    TerminalAdaptor,
    VirtualColumn,
)
from tests.table.snapshots import content, everything
from tests.table.test_builder import space
from tests.tables import small_columns, small_sequence
from tests.writer.episodes import ACTIONS, KEPT, MakeTable, play, values


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize(
    ("said", "terminated", "truncated"),
    [
        ({"terminated": True}, 1, 0),
        ({"terminated": np.False_}, 0, 1),
        ({"truncated": torch.tensor(True)}, 0, 1),
        ({"truncated": 0}, 1, 0),
        ({"terminated": True, "truncated": True}, 1, 1),
        ({"terminated": False, "truncated": False}, 0, 0),
    ],
)
def test_both_kinds_of_end_are_kept_apart(
    make_table: MakeTable, kind: str, said: dict[str, Any], terminated: int, truncated: int
) -> None:
    table = make_table(columns=[ACTIONS, *KEPT[kind]])
    with table.writer(identity=1) as writer:
        for action in range(3):
            writer.append(actions=action)
        writer.end(**said)
    found = table.sequence(1)
    before = [0, 0] if kind == "columns" else []
    assert found["terminated"].reshape(-1).tolist() == [*before, terminated]
    assert found["truncated"].reshape(-1).tolist() == [*before, truncated]


def test_an_end_that_the_table_keeps_has_to_be_told(make_table: MakeTable) -> None:
    table = make_table(columns=[ACTIONS, TagColumn("truncated", (), bool)])
    with table.writer() as writer:
        writer.append(actions=1)
        before = everything(table)
        with pytest.raises(SequenceError, match=r"keeps how.*'truncated'.*terminated=True or"):
            writer.end()
        for wrong in ("yes", 2, None, [True, False], np.nan):
            if wrong is not None:
                with pytest.raises(SequenceError, match=r"^truncated is .*; give True or False"):
                    writer.end(truncated=wrong)
        assert everything(table) == before and len(writer) == 1
        writer.end(truncated=True)


def test_steps_may_bring_the_flags_themselves(make_table: MakeTable) -> None:
    table = make_table(columns=[ACTIONS, *KEPT["columns"]])
    with table.writer(identity=1) as writer:
        for action, lost_life in enumerate((True, False, True)):
            writer.append(actions=action, terminated=lost_life)
        with pytest.raises(SequenceError, match="terminated is False, but the last step has True"):
            writer.end(terminated=False)
        assert writer.end() == [1]
        writer.append(actions=1)  # and may not, in the next episode
        writer.end(truncated=True)
    assert table.sequence(1)["terminated"].tolist() == [True, False, True]
    assert table.sequence(1)["truncated"].tolist() == [[0], [0], [0]]
    assert table.sequence(2)["truncated"].tolist() == [[1]]


def test_a_cut_is_no_true_end(make_table: MakeTable) -> None:
    table = make_table(columns=[ACTIONS, *KEPT["columns"]])
    with table.writer(identity=1, chunk=2, overlap=1) as writer:
        for action in range(4):
            writer.append(actions=action)
        writer.end(terminated=True)
    found = {identity: table.sequence(identity) for identity in (1, 2, 3)}
    assert [f["terminated"].tolist() for f in found.values()] == [[0, 0], [0, 0], [0, 1]]
    assert [f["truncated"].view(-1).tolist() for f in found.values()] == [[0, 1], [0, 1], [0, 0]]


def test_values_go_on_behind_a_truncated_end_only(make_table: MakeTable) -> None:
    columns = [
        *small_columns(),
        TagColumn("cut_off", (), "float32"),
        VirtualColumn("masks", (), "float32", "actions", SyntheticDones.as_mask),
    ]
    table = make_table(columns=columns, adaptors=TerminalAdaptor("masks", "cut_off"))
    with table.writer() as writer:
        for terminated in (True, False):
            table.clear()
            play(writer, 1, 3, terminated=terminated)
            batch = table.sample(1, 3)
            assert batch["masks"].tolist() == [1, 1, 0 if terminated else 1]
            assert batch["next_obs"][-1].tolist() == small_sequence(1, 3)["obs"][3].tolist()


def test_ready_made_tables_are_written_to(make_table: MakeTable, unique_name: Any) -> None:
    class Environment:
        observation_space = space((3,), "float32")
        action_space = space((), "int64")

    name = unique_name()
    with (
        DictObsMemoryTable(
            spaces=Environment(), use_terminal_column=True, maxlen=100, name=name
        ) as table,
        ArrayMemoryTable.attach(name) as attached,
    ):
        for where, terminated in itertools.product((table, attached), (True, False)):
            table.clear()
            with where.writer() as writer:
                play(writer, 1, 3, terminated=terminated)
            batch = table.sample(1, 3)
            assert batch["masks"].view(-1).tolist() == [1, 1, 0 if terminated else 1]
            assert batch["rewards"].view(-1).tolist() == [1, 2, 3]
            assert batch["next_observation"]["obs"][:, 1].tolist() == [1, 2, 3]
        assert table.check() == []


def test_tags_are_given_once_or_at_each_end(make_table: MakeTable) -> None:
    columns = [ACTIONS, TagColumn("task", (), "int64"), TagColumn("goal", (2,), "float32")]
    table = make_table(columns=columns)
    with table.writer(identity=0, tags={"task": 3}) as writer:
        writer.append(actions=1)
        with pytest.raises(SequenceError, match=r"'goal': missing.*to end\(\), or.*tags="):
            writer.end()
        with pytest.raises(SequenceError, match="'goal': tag has shape"):
            writer.end(goal=1)
        writer.end(goal=[1, 2])
        writer.append(actions=1)
        writer.end(goal=torch.ones(2), task=4)
        writer.append(actions=1)
        writer.end(goal=(0, 0))
    assert [table.sequence(number)["task"].item() for number in range(3)] == [3, 4, 3]
    with pytest.raises(SequenceError, match="'goal': missing"):
        table.writer(chunk=10, tags={"task": 3})
    with pytest.raises(SequenceError, match="'tusk': the table has no such tag; it has task, goal"):
        table.writer(tags={"tusk": 3})


def test_priorities_are_passed_on(make_table: MakeTable) -> None:
    columns, sampler = [ACTIONS], PrioritizedSampleStrategy(alpha=1.0, epsilon=0.0)
    table = make_table(columns=columns, sampler=sampler)
    with table.writer(
        identity=0, chunk=4, priority=lambda sequence: sequence["actions"].astype(float)
    ) as writer:
        for action in (0, 1, 0, 0, 0, 0):
            writer.append(actions=action)
        with pytest.raises(PriorityError, match="shape"):
            writer.end(priority=[1.0, 2.0, 3.0])
        assert len(writer) == 2
        writer.end(priority=[0.0, 3.0])
    points = table.sample(400, 1).points
    drawn = set(zip(points.identities.tolist(), points.offsets.tolist(), strict=True))
    assert drawn == {(0, 1), (1, 1)}
    assert 250 < int((points.identities == 1).sum()) < 350
    for wrong in (-1.0, "high", [1.0]):
        with pytest.raises(PriorityError):
            table.writer(priority=wrong)


def test_priorities_need_somebody_who_keeps_them(make_table: MakeTable) -> None:
    for priority in (1.0, lambda sequence: 1.0):
        with pytest.raises(PriorityError, match="keeps priorities"):
            make_table().writer(priority=priority)


def test_the_limiter_is_waited_for_no_longer_than_allowed(make_table: MakeTable) -> None:
    table = make_table(limiter=Queue(1), sampler=FifoSampleStrategy())
    with table.writer(identity=0, timeout_s=0.0) as writer:
        play(writer, 0, 2)
        with pytest.raises(RateLimitedError):
            play(writer, 1, 2)
        assert len(writer) == 2
        table.sample(1, 2)
        assert writer.end(obs=small_sequence(1, 2)["obs"][2]) == [1]
    assert content(table) == {1: values(small_sequence(1, 2))}
