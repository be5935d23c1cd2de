"""Vector environments fill a table: every way of beginning anew, from processes that may die."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.vector import AutoresetMode

from shmtable import FifoSampleStrategy, MinSize, Queue, RateLimitedError, SpecError
from shmtable.integrations.gymnasium import Collector, EpisodeRecorder, columns_from_spaces
from tests.integrations.environments import Counting, Encoding, Failing, counting

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
MODES = list(AutoresetMode)


def wrong_with(sequence, first: int = 0) -> str:
    """What is not as :class:`Counting` plays it, in a sequence from step ``first`` on."""
    observed = np.asarray(sequence["obs"])
    steps = len(sequence["actions"])
    number, episode = observed[0, :2]
    last = 2 + (number + episode) % 3
    cut = episode % 2 == 1
    at = first + np.arange(steps + 1)
    ends = at[1:] == last
    problems = {
        "rows": len(observed) != steps + 1,
        "one episode": (observed[:, :2] != [number, episode]).any(),
        "in order": (observed[:, 2] != at).any(),
        "beyond the end": at[-1] > last,
        "actions": (np.asarray(sequence["actions"]) != 100 * episode + at[:-1]).any(),
        "rewards": (np.asarray(sequence["rewards"]) != at[1:]).any(),
        "terminated": (np.asarray(sequence["terminated"]) != (ends & (not cut))).any(),
        "truncated": (np.asarray(sequence["truncated"]) != (ends & cut)).any(),
    }
    return ", ".join(what for what, wrong in problems.items() if wrong)


def added(table) -> list:
    """The table's sequences, in the order in which they came."""
    return [table.sequence(identity) for identity in table.identities()]


def recorded(make_table, environments, longest: int = 100):
    """A table for these environments, and who plays them into it."""
    columns = columns_from_spaces(
        environments.single_observation_space, environments.single_action_space
    )
    table = make_table(columns=columns, maxlen=10_000, length_key="rewards")
    return table, EpisodeRecorder(environments, table, longest)


@pytest.mark.parametrize("mode", MODES)
def test_an_episode_is_whole_however_environments_begin_anew(
    make_table, mode: AutoresetMode
) -> None:
    table, recorder = recorded(make_table, counting(3, mode))
    policy = Encoding()
    observations = recorder.reset(seed=1)
    for _ in range(40):
        observations = recorder.step(policy(observations))
    recorder.environments.close()
    made = added(table)
    assert [wrong_with(sequence) for sequence in made if wrong_with(sequence)] == []
    for number in range(3):
        episodes = [int(s["obs"][0, 1]) for s in made if s["obs"][0, 0] == number]
        assert sorted(episodes) == list(range(len(episodes)))
        assert len(episodes) >= 9  # of 2 to 4 steps, one more to reset
        assert all(s["terminated"][-1] != s["truncated"][-1] for s in made)
    recorder.close()
    assert len(added(table)) == len(made)


@pytest.mark.parametrize("mode", MODES)
def test_long_episodes_become_several_sequences(make_table, mode: AutoresetMode) -> None:
    table, recorder = recorded(make_table, counting(2, mode), longest=2)
    observations = recorder.reset()
    for _ in range(30):
        observations = recorder.step(Encoding()(observations))
    recorder.environments.close()
    made = added(table)
    firsts = [int(sequence["obs"][0, 2]) for sequence in made]
    assert set(firsts) == {0, 2}
    assert {len(sequence["actions"]) for sequence in made} == {1, 2}
    goes_on = 0
    for sequence, first in zip(made, firsts, strict=True):
        wrong = wrong_with(sequence, first)
        if wrong == "truncated":  # a part that goes on elsewhere
            assert sequence["truncated"].tolist() == [False, True]
            assert not sequence["terminated"].any()
            goes_on += 1
        else:
            assert wrong == ""
    assert goes_on >= sum(first == 2 for first in firsts) > 0


@pytest.mark.parametrize("mode", MODES)
def test_nested_observations_are_recorded_part_by_part(make_table, mode: AutoresetMode) -> None:
    environments = counting(2, mode, nested=True)
    table, recorder = recorded(make_table, environments)
    recorder.reset()
    for _ in range(12):
        recorder.step(environments.action_space.sample())
    environments.close()
    made = added(table)
    assert len(made) >= 4
    for sequence in made:
        at = np.arange(len(sequence["rewards"]) + 1)
        assert sequence["obs.where.pair.1"].tolist() == at.tolist()
        assert (sequence["obs.where.pair.0"] == -sequence["obs.box"]).all()
        assert sequence["obs.box"][:, 2].tolist() == (-at).tolist()


def test_environments_in_processes_of_their_own_are_recorded_as_well(make_table) -> None:
    environments = gymnasium.vector.AsyncVectorEnv(
        [Counting, partial(Counting, 1)],
        context="spawn",
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    table, recorder = recorded(make_table, environments)
    observations = recorder.reset()
    for _ in range(8):
        observations = recorder.step(Encoding()(observations))
    environments.close()
    made = added(table)
    assert len(made) >= 4
    assert [wrong_with(sequence) for sequence in made if wrong_with(sequence)] == []


def test_an_episode_that_is_held_back_is_given_up_when_unwanted(make_table) -> None:
    environments = counting(2, AutoresetMode.SAME_STEP)
    columns = columns_from_spaces(
        environments.single_observation_space, environments.single_action_space
    )
    table = make_table(columns=columns, limiter=Queue(1), sampler=FifoSampleStrategy())
    asked: list[int] = []
    recorder = EpisodeRecorder(
        environments, table, is_wanted=lambda: (asked.append(1), len(asked) < 2)[1]
    )
    observations = recorder.reset()
    with pytest.raises(RateLimitedError):
        for _ in range(8):
            observations = recorder.step(Encoding()(observations))
    environments.close()
    assert len(asked) == 2
    assert [wrong_with(sequence) for sequence in added(table)] == [""]


def test_an_episode_waits_for_room_that_others_are_slow_to_write_into(
    make_table, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (counting(1, AutoresetMode.SAME_STEP) for _ in range(2))
    columns = columns_from_spaces(one.single_observation_space, one.single_action_space)
    table = make_table(columns=columns, maxlen=3, length_key="rewards")  # not two of two steps
    writing, go_on, write = threading.Event(), threading.Event(), table._core.storage.write

    def write_slowly(*arguments) -> None:
        if threading.current_thread() is slow:
            writing.set()
            go_on.wait(DEADLINE_S)
        write(*arguments)

    def ask() -> bool:
        go_on.set()
        slow.join(DEADLINE_S)
        return True

    def play(recorder: EpisodeRecorder) -> None:
        observations = recorder.reset()
        for _ in range(2):
            observations = recorder.step(Encoding()(observations))
        recorder.close()

    monkeypatch.setattr(table._core.storage, "write", write_slowly)
    slow = threading.Thread(target=play, args=(EpisodeRecorder(other, table),))
    slow.start()
    try:
        assert writing.wait(10)
        play(EpisodeRecorder(one, table, is_wanted=ask))
        assert go_on.is_set()  # it has waited, and asked whether it should
    finally:
        ask()
    assert [wrong_with(sequence) for sequence in added(table)] == [""]
    one.close()
    other.close()


def counted(make_table, **options):
    environment = Counting()
    columns = columns_from_spaces(environment.observation_space, environment.action_space)
    return make_table(columns=columns, maxlen=100_000, **options)


def until(reached) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_fill_a_table_while_it_is_sampled(make_table) -> None:
    table = counted(make_table)
    make = partial(counting, 2, AutoresetMode.SAME_STEP)
    with Collector(table, make, Encoding(), workers=2, seed=3) as collector:
        sample = table.sample(50, 2, timeout_s=DEADLINE_S)
        until(lambda: table.stats().attachments >= 3 and table.stats().sequences > 100)
        assert len(collector) == 2
        assert collector.deaths == []
    assert (sample["next_obs"][:, 2] == sample["obs"][:, 2] + 1).all()
    sequences = [table.sequence(identity) for identity in table.identities()]
    assert [wrong_with(sequence) for sequence in sequences if wrong_with(sequence)] == []


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "raised"])
def test_a_worker_that_dies_stops_no_other(make_table, kill: bool, capfd) -> None:
    table = counted(make_table)
    make = partial(counting, 2)
    with (
        Collector(table, make, Failing(kill), seed=0) as dying,
        Collector(table, make, Encoding(), seed=0) as living,
    ):
        until(lambda: len(dying) == 0)
        (death,) = dying.deaths
        assert str(death).startswith("collector-0 (pid ")
        assert ("SIGKILL" if kill else "exit code 1") in str(death)
        added = table.stats().sequences_added
        until(lambda: table.stats().sequences_added > added + 20)
        assert len(living) == 1
    if not kill:
        assert "no third episode" in capfd.readouterr().err


def test_one_of_several_workers_killed_stops_no_other(make_table) -> None:
    table = counted(make_table)
    with Collector(table, partial(counting, 1), Encoding(), workers=3) as collector:
        until(lambda: table.stats().sequences_added > 50 and table.stats().attachments == 4)
        collector._crew.members[1].process.kill()
        until(lambda: len(collector) == 2)
        added = table.stats().sequences_added
        until(lambda: table.stats().sequences_added > added + 50)
        assert "was ended by SIGKILL" in str(collector.deaths[0])


PARENT = """
import time
from functools import partial
from shmtable import uniform_replay
from shmtable.integrations.gymnasium import Collector, columns_from_spaces
from tests.integrations.environments import Counting, Encoding, counting

if __name__ == "__main__":
    environment = Counting()
    columns = columns_from_spaces(environment.observation_space, environment.action_space)
    table = uniform_replay(columns, 1000)
    with Collector(table, partial(counting, 1), Encoding(), workers=2) as collector:
        while table.stats().attachments < 3 or not len(table):
            time.sleep(0.01)
        print(*(member.process.pid for member in collector._crew.members), flush=True)
        time.sleep(600)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": search}
    ) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
        finally:
            parent.kill()
    assert len(pids) == 2
    until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    """Neither gone nor waiting to be buried by whoever adopted it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_workers_held_up_by_the_limiter_end_all_the_same(make_table) -> None:
    table = counted(make_table, limiter=Queue(5), sampler=FifoSampleStrategy())
    with Collector(table, partial(counting, 2), Encoding()) as collector:
        until(lambda: table.stats().sequences == 5)
        assert collector.deaths == []
    assert table.stats().sequences == 5


def test_random_actions_and_fewer_columns(make_table) -> None:
    environment = gymnasium.make("CartPole-v1")
    columns = columns_from_spaces(environment.observation_space, environment.action_space)
    kept = [column for column in columns if column.name not in ("terminated", "truncated")]
    table = make_table(columns=kept, maxlen=10_000, limiter=MinSize(100))
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=4)
    with Collector(table, make, seed=5, longest=7):
        batch = table.sample(64, 5, timeout_s=DEADLINE_S)
    assert set(batch["actions"].tolist()) == {0, 1}
    assert max(len(table.sequence(i)["actions"]) for i in table.identities()) == 7


def test_bad_arguments_are_refused_before_any_process_starts(make_table) -> None:
    table = counted(make_table)
    with pytest.raises(SpecError, match="workers is 0"):
        Collector(table, partial(counting, 1), workers=0)
    with pytest.raises(SpecError, match="longest is 0"):
        Collector(table, partial(counting, 1), longest=0)
    with pytest.raises(SpecError, match="needs its own"):
        Collector(table, counting(1))
