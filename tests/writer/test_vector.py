"""Environments that step together: the same sequences as from a writer for each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    ClosedError,
    Column,
    FifoSampleStrategy,
    NextNElementWrapper,
    Queue,
    RateLimitedError,
    SequenceError,
    SpecError,
    TagColumn,
    VectorWriter,
    VirtualColumn,
)
from tests.table.snapshots import everything
from tests.tables import small_columns

MakeTable = Callable[..., ArrayMemoryTable]
COLUMNS = [*small_columns(), TagColumn("who", (), "int64"), TagColumn("truncated", (), bool)]
Call = dict[str, Any]


class World:
    """Environments whose every observation says which one, which episode and which step it is.

    The episodes after those that have a length are endless.
    """

    def __init__(self, lengths: list[list[int]], mode: str) -> None:
        self.count, self.mode = len(lengths), mode
        self._lengths = lengths
        self._episode, self._step = [0] * self.count, [0] * self.count
        self._over = [False] * self.count

    def obs(self) -> Any:
        return np.array([self._one(place) for place in range(self.count)], np.float32)

    def call(self) -> Call:
        """What one step of all gives to a vector writer."""
        before, rewards = self.obs(), np.zeros(self.count, np.float32)
        ended, final = np.zeros(self.count, bool), np.full(self.count, None)
        for place in range(self.count):
            if self._over[place]:  # next_step: this call only resets it
                self._reset(place)
                continue
            self._step[place] += 1
            rewards[place] = self._step[place]
            episodes, episode = self._lengths[place], self._episode[place]
            if episode < len(episodes) and self._step[place] == episodes[episode]:
                ended[place], final[place] = True, self._one(place)
                if self.mode == "next_step":
                    self._over[place] = True
                elif self.mode == "same_step":
                    self._reset(place)
        following = self.obs()
        if self.mode == "disabled":
            for place in np.flatnonzero(ended):
                self._reset(int(place))
        same = self.mode == "same_step" and ended.any()
        return {
            "obs": before,
            "actions": np.arange(self.count),
            "rewards": rewards,
            "terminated": ended & (before[:, 1] % 2 == 0),
            "truncated": ended & (before[:, 1] % 2 == 1),
            "following": following,
            "infos": {"final_obs": final, "_final_obs": ended} if same else {},
        }

    def _one(self, place: int) -> list[int]:
        return [place, self._episode[place], self._step[place]]

    def _reset(self, place: int) -> None:
        self._episode[place] += 1
        self._step[place], self._over[place] = 0, False


def one_by_one(table: ArrayMemoryTable, lengths: list[list[int]], **options: Any) -> None:
    """The same episodes through a writer for each."""
    for place, episodes in enumerate(lengths):
        with table.writer(tags={"who": place}, **options) as writer:
            for episode, length in enumerate(episodes):
                for step in range(length):
                    writer.append(obs=[place, episode, step], actions=place, rewards=step + 1)
                writer.end(obs=[place, episode, length], truncated=bool(episode % 2))


def by_environment(table: ArrayMemoryTable, count: int) -> list[list[Any]]:
    found: list[list[Any]] = [[] for _ in range(count)]
    for sequence in map(table.sequence, table.identities().tolist()):
        found[int(sequence["who"])].append({n: c.tolist() for n, c in sequence.items()})
    return found


def vector(table: ArrayMemoryTable, count: int, mode: str, **options: Any) -> VectorWriter:
    return table.vector_writer(count, autoreset=mode, tags={"who": range(count)}, **options)


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_as_a_writer_for_each(make_table: MakeTable, mode: str, seed: int) -> None:
    rng = random.Random(seed)
    chunk = rng.choice([None, 1, 3, 10])
    options = {"chunk": chunk, "overlap": rng.randrange(chunk) if chunk else 0}
    count, calls = rng.randrange(1, 6), 400
    lengths = [
        [rng.choice([1, 2, rng.randrange(1, 30), rng.randrange(60, 300)]) for _ in range(calls)]
        for _ in range(count)
    ]
    table = make_table(columns=COLUMNS, maxlen=20_000)
    world = World(lengths, mode)
    with vector(table, count, mode, unfinished="drop", **options) as writer:
        for _ in range(calls):
            writer.append(**world.call())
    got = by_environment(table, count)
    other = make_table(columns=COLUMNS, maxlen=1_000_000)
    pause = mode == "next_step"
    ended = [
        list(itertools.takewhile(lambda total: total <= calls, itertools.accumulate(
            length + pause for length in episodes)))
        for episodes in lengths
    ]  # fmt: skip
    one_by_one(other, [e[: len(n) + 1] for e, n in zip(lengths, ended, strict=True)], **options)
    wanted = by_environment(other, count)
    for place in range(count):
        # Whole episodes all; of the one that was open at the end, the parts cut off by then.
        complete = [w for w in wanted[place] if w["obs"][0][1] < len(ended[place])]
        if not pause:
            assert len(got[place]) >= len(complete)
        assert len(got[place]) >= len(complete) - 1
        assert got[place] == wanted[place][: len(got[place])]
    assert sum(map(len, got)) >= count


def test_tensors_and_lists_are_taken(make_table: MakeTable) -> None:
    table, world = make_table(columns=COLUMNS), World([[2], [3]], "next_step")
    with vector(table, 2, "next_step", unfinished="drop") as writer:
        for _ in range(2):
            writer.append(**{
                name: value if isinstance(value, dict) else torch.from_numpy(value)
                for name, value in world.call().items()
            })  # fmt: skip
        call = {
            name: value if isinstance(value, dict) else value.tolist()
            for name, value in world.call().items()
        }
        writer.append(**call)
    one_by_one(other := make_table(columns=COLUMNS), [[2], [3]])
    assert by_environment(table, 2) == by_environment(other, 2)


def test_final_observations_in_every_form(make_table: MakeTable) -> None:
    final = np.array([[0, 0, 1], [1, 0, 1]], np.float32)
    named = np.array([{"obs": row} for row in final])
    for mode, infos, following in (
        ("same_step", {"final_obs": final}, None),
        ("same_step", {"final_obs": {"obs": final}, "_final_obs": [True, True]}, None),
        ("same_step", {"final_obs": named}, "no matter"),
        ("next_step", None, {"obs": final.tolist()}),
        ("disabled", {}, torch.from_numpy(final)),
    ):
        table = make_table(columns=COLUMNS)
        call = World([[1], [1]], mode).call()
        with vector(table, 2, mode) as writer:
            writer.append(**{**call, "infos": infos, "following": following})
        one_by_one(other := make_table(columns=COLUMNS), [[1], [1]])
        assert by_environment(table, 2) == by_environment(other, 2)


@pytest.mark.parametrize(
    "infos",
    [
        {},
        None,
        {"final_obs": np.zeros((2, 3)), "_final_obs": np.array([True, False])},
        {"final_obs": np.full(2, None)},
        {"final_obs": {"other": np.zeros((2, 3))}},
    ],
)
def test_a_final_observation_that_is_missing_is_not_made_up(
    make_table: MakeTable, infos: Any
) -> None:
    table, call = make_table(columns=COLUMNS), World([[1], [1]], "same_step").call()
    with vector(table, 2, "same_step") as writer:
        with pytest.raises(SequenceError, match="final_obs"):
            writer.append(**{**call, "infos": infos})
        assert table.size() == 0
        writer.append(**call)
    assert table.stats().sequences == 2


def wrong_calls() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"obs": np.zeros((3, 3))}, r"'obs': step has shape \(3, 3\), declared \(2, 3\)"
    yield {"actions": np.zeros(2)}, r"'actions': float64 values would lose information"
    yield {"reward": np.zeros(2)}, r"'reward': is no column of a step"
    yield {"rewards": np.array([0, 1e39])}, r"'rewards': 1e\+39 does not fit"
    yield {"terminated": True}, r"terminated has shape \(\) and dtype bool; give 2 bools"
    yield {"truncated": [0, 1]}, r"truncated has shape \(2,\) and dtype int64"
    yield {"following": None}, r"'obs': following has no value of environment 1"
    yield {"following": {"ob": np.zeros((2, 3))}}, r"'obs': following has no value of environment 1"
    yield {"following": np.zeros((2, 4))}, r"'obs': step has shape \(4,\), declared \(3,\)"
    yield {"following": np.zeros((3, 3))}, r"'obs': following has no value of environment 1"
    yield {"infos": {"final_obs": np.zeros((2, 3))}}, r"is 'next_step' and final_obs is in infos"


@pytest.mark.parametrize(("wrong", "message"), list(wrong_calls()))
def test_a_bad_step_changes_nothing(make_table: MakeTable, wrong: Call, message: str) -> None:
    lengths = [[5], [3]]
    table, world = make_table(columns=COLUMNS), World(lengths, "next_step")
    with vector(table, 2, "next_step", unfinished="drop") as writer:
        for step in range(5):
            call = world.call()
            if step == 2:  # the second one's last
                before = everything(table)
                with pytest.raises(SequenceError, match=message):
                    writer.append(**{**call, **wrong})
                assert everything(table) == before
            writer.append(**call)
    one_by_one(other := make_table(columns=COLUMNS), lengths)
    assert by_environment(table, 2) == by_environment(other, 2)


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_step_that_finds_no_room_for_all_is_appended_again(
    make_table: MakeTable, chunk: int | None
) -> None:
    lengths = [[3, 2], [3, 1], [3, 4]]
    table = make_table(columns=COLUMNS, limiter=Queue(1), sampler=FifoSampleStrategy())
    world, seen = World(lengths, "next_step"), []
    with vector(table, 3, "next_step", chunk=chunk, timeout_s=0.0, unfinished="drop") as writer:
        for _ in range(4):
            call = world.call()
            while True:
                try:
                    writer.append(**call)
                    break
                except RateLimitedError:
                    (identity,) = table.identities().tolist()
                    seen.append({n: c.tolist() for n, c in table.sequence(identity).items()})
                    table.sample(1, 1)
    one_by_one(other := make_table(columns=COLUMNS), [[3], [3], [3]], chunk=chunk)
    seen += [row for rows in by_environment(table, 3) for row in rows]
    wanted = [row for rows in by_environment(other, 3) for row in rows]
    assert sorted(seen, key=repr) == sorted(wanted, key=repr)


def test_what_is_open_is_flushed(make_table: MakeTable, caplog: Any) -> None:
    table, world = make_table(columns=COLUMNS), World([[2, 9], [9], [4]], "next_step")
    with vector(table, 3, "next_step") as writer:
        for _ in range(4):
            writer.append(**world.call())
    # The first has one step since its reset, which only says what came before.
    assert " 5 steps" in caplog.text and "added as truncated" in caplog.text
    found = by_environment(table, 3)
    assert [[len(s["actions"]) for s in rows] for rows in found] == [[2], [3], [4]]
    assert found[1][0]["truncated"] is True and found[1][0]["obs"][-1] == [1, 0, 3]


def test_after_a_flush_a_reset_is_still_one(make_table: MakeTable) -> None:
    table, world = make_table(columns=COLUMNS), World([[2, 3], [9]], "next_step")
    with vector(table, 2, "next_step", unfinished="drop") as writer:
        for step in range(6):
            writer.append(**world.call())
            if step == 1:
                assert len(writer.flush()) == 1
                assert writer.drop() == 0
    assert [len(s["actions"]) for s in by_environment(table, 2)[0]] == [2, 3]


def test_what_is_open_is_dropped(make_table: MakeTable, caplog: Any) -> None:
    table, world = make_table(columns=COLUMNS), World([[9], [9]], "disabled")
    writer = vector(table, 2, "disabled", unfinished="drop")
    for _ in range(4):
        writer.append(**world.call())
    writer.close()
    assert "8 steps of unfinished episodes were dropped" in caplog.text
    assert table.size() == 0
    with pytest.raises(ClosedError, match="writer is closed"):
        writer.append(**world.call())


def test_an_episode_longer_than_the_table_is_noticed_in_time(make_table: MakeTable) -> None:
    table, world = make_table(columns=COLUMNS, maxlen=70), World([[500], [20] * 9], "disabled")
    with vector(table, 2, "disabled", unfinished="drop") as writer:
        for _ in range(70):
            writer.append(**world.call())
        with pytest.raises(SequenceError, match=r"70 steps, as many as the table holds.*chunk="):
            writer.append(**world.call())
    assert [len(s["actions"]) for s in by_environment(table, 2)[1]] == [20, 20, 20]


def test_stored_flags_are_filled(make_table: MakeTable) -> None:
    columns = [*COLUMNS[:-1], Column("terminated", (1,), "float32"), Column("truncated", (), bool)]
    table, world = make_table(columns=columns), World([[2, 3]], "same_step")
    with vector(table, 1, "same_step") as writer:
        for _ in range(5):
            writer.append(**world.call())
    first, second = by_environment(table, 1)[0]
    assert first["terminated"] == [[0], [1]] and first["truncated"] == [False] * 2
    assert second["terminated"] == [[0]] * 3 and second["truncated"] == [False, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count is 0; give at least 1"),
        ({"autoreset": "now"}, r"autoreset is 'now'; give envs.metadata\['autoreset_mode'\], or"),
        ({"tags": {"who": [1]}}, "'who': 1 tags; give 2, one for each environment"),
        ({"tags": None}, "'who': missing"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_options_that_cannot_be(make_table: MakeTable, options: Any, message: str) -> None:
    arguments = {"count": 2, "autoreset": "same_step", "tags": {"who": [1, 2]}, **options}
    with pytest.raises((SpecError, SequenceError), match=message):
        make_table(columns=COLUMNS).vector_writer(**arguments)


def test_columns_that_need_more_than_one_value_after_the_last(make_table: MakeTable) -> None:
    later = VirtualColumn("later", (3,), "float32", "obs", NextNElementWrapper.with_n(2))
    for column in (later, Column("infos", (), "int64")):
        table = make_table(columns=[*small_columns(), column])
        with pytest.raises(SpecError, match=r"use table.writer\(\)"):
            table.vector_writer(2, autoreset="disabled")
