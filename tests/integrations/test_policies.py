"""Policies with columns of their own and with a memory, and what their episodes came to."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from shmtable import Column, NextElementMapper, SequenceError, SpecError, VirtualColumn
from shmtable.integrations.acting import Acting
from shmtable.integrations.gymnasium import (
    Collector,
    EpisodeRecorder,
    FinishedEpisodes,
    columns_from_spaces,
)
from tests.integrations.environments import (
    Answering,
    Counting,
    Encoding,
    Failing,
    Remembering,
    counting,
)

DEADLINE_S = 120.0
MODES = list(AutoresetMode)
STATE = Column("state", (2,), "int64")


def counted(make_table, *own: Column):
    """A table for :class:`Counting`, with columns of the policy's own."""
    environment = Counting()
    columns = columns_from_spaces(environment.observation_space, environment.action_space)
    return make_table(columns=[*columns, *own], maxlen=100_000)


def until(reached) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def play(recorder: EpisodeRecorder, policy, steps: int) -> list[tuple[float, int]]:
    """What the episodes came to that ended meanwhile."""
    act, ended = Acting(recorder.environments, policy, recorder.own), []
    observations = recorder.reset()
    for _ in range(steps):
        observations = recorder.step(*act(observations, recorder.begun))
        ended += recorder.ended
    recorder.close()
    recorder.environments.close()
    return ended


def states_are_right(table) -> bool:
    """Whether a :class:`Remembering` knew at every step how far its episode was."""
    sequences = [table.sequence(identity) for identity in table.identities()]
    at = [np.asarray(sequence["obs"])[:-1, 2] for sequence in sequences]
    states = [np.asarray(sequence["state"]) for sequence in sequences]
    return len(sequences) > 8 and all(
        (state == np.stack([steps, -steps], 1)).all()
        for state, steps in zip(states, at, strict=True)
    )


@pytest.mark.parametrize("longest", [100, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_policy_is_told_where_episodes_begin_and_its_columns_are_kept(
    make_table, mode: AutoresetMode, longest: int
) -> None:
    table = counted(make_table, STATE)
    recorder = EpisodeRecorder(counting(3, mode), table, longest, overlap=min(2, longest - 1))
    assert recorder.own == ("state",)
    play(recorder, Remembering(), 40)
    assert states_are_right(table)
    firsts = {int(table.sequence(i)["obs"][0, 2]) for i in table.identities()}
    assert firsts == ({0} if longest == 100 else {0, 1})  # with an overlap of two steps


@pytest.mark.parametrize("longest", [100, 2])
@pytest.mark.parametrize("mode", MODES)
def test_what_episodes_came_to(make_table, mode: AutoresetMode, longest: int) -> None:
    table = counted(make_table)
    ended = play(EpisodeRecorder(counting(3, mode), table, longest), Encoding(), 40)
    assert {length for _, length in ended} == {2, 3, 4}
    assert all(total == length * (length + 1) / 2 for total, length in ended)
    final = [table.sequence(i) for i in table.identities()]
    wholes = [s for s in final if int(s["obs"][-1, 2]) == 2 + int(s["obs"][0, :2].sum()) % 3]
    assert len(ended) == len(wholes)


def test_a_step_that_only_resets_counts_for_nothing(make_table) -> None:
    table = counted(make_table)
    one_more = gymnasium.wrappers.vector.TransformReward(counting(2), lambda rewards: rewards + 1)
    ended = play(EpisodeRecorder(one_more, table), Encoding(), 20)
    assert len(ended) >= 8
    assert all(total == length * (length + 1) / 2 + length for total, length in ended)


def test_a_reset_forgets_what_episodes_had_come_to(make_table) -> None:
    recorder = EpisodeRecorder(counting(1), counted(make_table))
    recorder.reset()
    assert recorder.begun.tolist() == [True]
    recorder.step([0])
    assert recorder.begun.tolist() == [False]
    recorder.reset()  # the episode that begins has three steps
    assert recorder.begun.tolist() == [True]
    for _ in range(3):
        assert recorder.ended == []
        recorder.step([100])
    assert recorder.ended == [(6.0, 3)]
    recorder.close()
    recorder.environments.close()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, r"column 'state': no environment fills it.*return \(actions, {'state': values}\)"),
        ({"state": np.zeros((2, 2)), "odd": 1}, r"column 'odd': came with.*\(but state\)"),
        ({"state": np.zeros((2, 3))}, r"shape \(2, 3\); give shape \(2, 2\).*each of 2 env"),
        ({"state": 0}, r"shape \(\); give shape \(2, 2\)"),
        ({"state": np.full((2, 2), 0.5)}, "column 'state'"),
        ({"state": [["a", "b"], ["c", "d"]]}, "column 'state'"),
    ],
    ids=["missing", "unknown", "shape", "scalar", "fractions", "text"],
)
def test_columns_that_do_not_fit_are_refused_before_the_step(make_table, columns, said) -> None:
    recorder = EpisodeRecorder(counting(2), counted(make_table, STATE))
    recorder.reset()
    with pytest.raises(SequenceError, match=said):
        recorder.step([0, 0], columns)
    observations = recorder.step([0, 0], {"state": np.zeros((2, 2), np.int64)})
    assert observations[:, 2].tolist() == [1, 1]  # the first step that was taken
    recorder.close()
    recorder.environments.close()


def test_a_column_of_the_policy_cannot_be_looked_ahead_in(make_table) -> None:
    following = VirtualColumn("next_state", (2,), "int64", "state", NextElementMapper)
    with pytest.raises(SpecError, match="'state': 'next_state' needs what came after"):
        EpisodeRecorder(counting(1), counted(make_table, STATE, following))


@pytest.mark.parametrize("answer", [Encoding(), Answering()], ids=["actions only", "no column"])
def test_a_column_that_nobody_fills_is_missed(make_table, answer) -> None:
    recorder = EpisodeRecorder(counting(1), counted(make_table, STATE))
    with pytest.raises(SequenceError, match="column 'state': no environment fills it"):
        play(recorder, answer, 1)
    with pytest.raises(SequenceError, match="column 'state': no environment fills it"):
        play(recorder, None, 1)


def test_a_column_that_the_table_has_not_is_refused(make_table) -> None:
    recorder = EpisodeRecorder(counting(1), counted(make_table))
    with pytest.raises(SequenceError, match=r"'chances'.*\(but none\); declare it"):
        play(recorder, Answering(chances=[0.5]), 1)


class Pairing:
    """Two parts, as the space has them, or a pair of these and a column."""

    def __init__(self, own: bool) -> None:
        self.own = own

    def __call__(self, observations):
        count = len(observations["box"])
        actions = (np.ones(count, np.int64), {"a": np.zeros((count, 1), np.float32)})
        return (actions, {"own": np.arange(count)}) if self.own else actions


class Paired(Counting):
    def __init__(self) -> None:
        super().__init__(nested=True)
        box = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Tuple((spaces.Discrete(2), spaces.Dict({"a": box})))


@pytest.mark.parametrize("own", [True, False])
def test_a_pair_of_actions_is_none_of_actions_and_columns(make_table, own: bool) -> None:
    environments = SyncVectorEnv([Paired, Paired])
    columns = columns_from_spaces(
        environments.single_observation_space, environments.single_action_space
    )
    columns += [Column("own", (), "int64")] * own
    table = make_table(columns=columns, length_key="rewards")
    play(EpisodeRecorder(environments, table), Pairing(own), 10)
    sequence = table.sequence(table.identities()[0])
    assert sequence["actions.0"].tolist() == [1] * len(sequence["rewards"])
    assert sequence["actions.1.a"].shape == (len(sequence["rewards"]), 1)
    assert ("own" in sequence) is own


@pytest.mark.parametrize("mode", MODES)
def test_workers_with_a_memory(make_table, mode: AutoresetMode) -> None:
    table = counted(make_table, STATE)
    make = partial(counting, 2, mode)
    with Collector(table, make, Remembering(), workers=2, longest=3, overlap=1) as collector:
        until(lambda: len(collector.episodes) > 120 and table.stats().attachments >= 3)
        assert collector.deaths == []
    assert states_are_right(table)
    lengths, returns = collector.episodes.lengths, collector.episodes.returns
    assert lengths.dtype == np.int64
    assert returns.dtype == np.float64
    assert lengths.shape == returns.shape == (100,)
    assert set(lengths.tolist()) == {2, 3, 4}
    assert (returns == lengths * (lengths + 1) / 2).all()


def test_what_a_policy_does_wrong_is_said_by_the_worker(make_table, capfd) -> None:
    table = counted(make_table)
    with Collector(table, partial(counting, 1), Answering(chances=[0.5])) as collector:
        until(lambda: len(collector) == 0)
        assert "exit code 1" in str(collector.deaths[0])
    assert "column 'chances': came with the actions" in capfd.readouterr().err
    assert len(collector.episodes) == 0
    assert collector.episodes.returns.tolist() == collector.episodes.lengths.tolist() == []


def test_episodes_of_a_worker_that_was_killed_stay_and_others_go_on(make_table) -> None:
    table = counted(make_table)
    make = partial(counting, 1)
    with (
        Collector(table, make, Failing(kill=True)) as dying,
        Collector(table, make, Encoding()) as living,
    ):
        until(lambda: len(dying) == 0 and len(living.episodes) > 0)
        assert dying.episodes.lengths.tolist() == [2, 3]
        before = len(living.episodes)
        until(lambda: len(living.episodes) > before + 20)


def test_any_of_several_workers_may_be_killed_while_it_notes_an_episode(make_table) -> None:
    table = counted(make_table)
    with Collector(table, partial(counting, 1), Encoding(), workers=3) as collector:
        until(lambda: len(collector.episodes) > 200 and table.stats().attachments == 4)
        for left in (2, 1):
            collector._crew.members[0].process.kill()
            until(lambda left=left: len(collector) == left)
            before = len(collector.episodes)
            until(lambda before=before: len(collector.episodes) > before + 100)
            # Fewer for a moment: the oldest goes before the newest is there.
            until(lambda: len(collector.episodes.returns) == 100)


def note_some(episodes: FinishedEpisodes) -> None:
    for number in range(5):
        episodes.note(number / 2, number)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_same_episodes_in_every_process(method: str) -> None:
    episodes = FinishedEpisodes()
    episodes.note(-1.0, 7)
    process = multiprocessing.get_context(method).Process(target=note_some, args=(episodes,))
    process.start()
    process.join(DEADLINE_S)
    assert process.exitcode == 0
    assert episodes.returns.tolist() == [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0]
    assert episodes.lengths.tolist() == [7, 0, 1, 2, 3, 4]
    for number in range(100):
        episodes.note(number, 1)
    assert len(episodes) == 106
    assert episodes.returns.tolist() == list(range(100))
    episodes.close()
    episodes.close()


def test_bad_arguments_are_refused_before_any_process_starts(make_table) -> None:
    table = counted(make_table)
    with pytest.raises(SpecError, match=r"overlap is 5.*have 5 steps \(longest\); give 0 to 4"):
        Collector(table, partial(counting, 1), longest=5, overlap=5)
    with pytest.raises(SpecError, match="overlap is -1"):
        Collector(table, partial(counting, 1), overlap=-1)
    with pytest.raises(SpecError, match="policy is 3; give a function"):
        Collector(table, partial(counting, 1), 3)
