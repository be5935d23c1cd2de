"""Steps of agents become the sequences they should, each against one written by hand."""

from __future__ import annotations

import enum
import itertools
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    Column,
    DictObservation,
    DictObsMemoryTable,
    DictResponse,
    DuplicateIdentityError,
    FifoSampleStrategy,
    MemoryTableProxy,
    Queue,
    RateLimitedError,
    SequenceError,
    SpecError,
    TagColumn,
)
from tests.multiprocess.recipe import Crew, link
from tests.proxies.steps import (
    INITIAL,
    INTERRUPTED,
    RUNNING,
    TERMINAL,
    TERMINAL_TAG,
    columns,
    observation,
    play,
    response,
)


def listed(sequence: dict[str, Any]) -> dict[str, Any]:
    return {name: rows.tolist() for name, rows in sequence.items()}


def test_an_episode_becomes_the_sequence_it_should(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    assert proxy.is_initial(3)
    proxy.add({3: observation(3, 0, INITIAL)}, {3: response(3, 0)})
    assert not proxy.is_initial(3)
    proxy.add({3: observation(3, 1, RUNNING)}, {3: response(3, 1)})
    assert proxy.size() == 0
    proxy.add({3: observation(3, 2, TERMINAL)}, {})
    assert proxy.is_initial(3)
    assert proxy.size() == table.size() == 2
    found = listed(table.sequence(3))
    assert found["obs"] == [[3, 0], [3, 1], [3, 2]]
    assert found["actions"] == [[300], [301]]
    assert found["rewards"] == [[3], [pytest.approx(3.1)]]
    sample = table.sample(1, 2)
    assert sample["next_obs"].tolist() == [[3, 1], [3, 2]]


def test_agents_are_kept_apart_whatever_the_order(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table, None, False)
    lengths = {1: 4, 2: 2, 7: 3}
    for step in range(5):
        observations, responses = {}, {}
        for agent, length in lengths.items():
            if step > length:
                continue
            state = INITIAL if step == 0 else TERMINAL if step == length else RUNNING
            observations[agent] = observation(agent, step, state)
            if step < length:
                responses[agent] = response(agent, step)
        proxy.add(observations, responses)
    assert table.identities().tolist() == [2, 7, 1]  # as they ended
    for agent, length in lengths.items():
        found = table.sequence(agent)
        assert found["obs"].tolist() == [[agent, step] for step in range(length + 1)]
        assert found["actions"].tolist() == [[100 * agent + step] for step in range(length)]


def test_short_episodes_are_dropped(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table, minimum_length_threshold=3)
    for agent, length in ((1, 2), (2, 3), (3, 1), (4, 4)):
        play(proxy, agent, length)
    assert table.identities().tolist() == [2, 4]
    play(MemoryTableProxy(table, 0), 9, 1)  # 0 keeps all
    assert table.identities().tolist() == [2, 4, 9]


def test_the_terminal_tag_is_a_mask(make_table) -> None:
    table = make_table(columns=columns(TERMINAL_TAG))
    proxy = MemoryTableProxy(table, use_terminal=True)
    play(proxy, 1, 2, TERMINAL)
    play(proxy, 2, 2, INTERRUPTED)
    assert [float(table.sequence(agent)["terminal"]) for agent in (1, 2)] == [0, 1]


class Space:
    """As much of a space as a table asks for."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype = shape, "float32"


SPACES = SimpleNamespace(
    rewards=None, actions=Space(1), state=SimpleNamespace(spaces={"obs": Space(2)})
)


@pytest.mark.parametrize(("end", "last_mask"), [(TERMINAL, 0.0), (INTERRUPTED, 1.0)])
def test_with_a_ready_made_table_values_go_on_through_interruptions_only(
    end: Any, last_mask: float
) -> None:
    with DictObsMemoryTable(spaces=SPACES, use_terminal_column=True, maxlen=100) as table:
        play(MemoryTableProxy(table, use_terminal=True), 1, 3, end)
        sample = table.sample(1, 3)
        assert sample["masks"].flatten().tolist() == [1, 1, last_mask]
        assert sample["observation"]["obs"].tolist() == [[1, 0], [1, 1], [1, 2]]
        assert sample["next_observation"]["obs"].tolist() == [[1, 1], [1, 2], [1, 3]]
        assert table.check() == []


# -- whatever has the attributes -----------------------------------------------------------------


class ForeignState(enum.Enum):
    """Another package's, with other values and more members."""

    TERMINAL = "t"
    INITIAL = "i"
    RUNNING = "r"
    INTERRUPTED = "x"


def test_objects_of_other_packages_will_do(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    for step, state in enumerate(("INITIAL", "RUNNING", "INTERRUPTED")):
        seen: Any = SimpleNamespace(
            rewards={"reward": torch.tensor([step / 2])},
            episode_state=ForeignState[state],
            array_data={"obs": torch.tensor([5.0, step])},
        )
        answer: Any = SimpleNamespace(
            list_data={"actions": np.array([step], np.int16)}, scalar_data={}
        )
        proxy.add({5: seen}, {5: answer})  # a response to the last one is left out
    found = listed(table.sequence(5))
    assert found["obs"] == [[5, 0], [5, 1], [5, 2]]
    assert found["actions"] == [[0], [1]]
    assert found["rewards"] == [[0.5], [1.0]]


def test_arrays_that_the_environment_writes_again_are_copied(make_table) -> None:
    table = make_table(columns=columns(Column("state", (2,), "float32")))
    proxy = MemoryTableProxy(table)
    seen, state = np.zeros(2, np.float32), torch.zeros(2)
    for step in range(3):
        seen[:] = step
        state[:] = -step
        last = step == 2
        proxy.add(
            {
                1: DictObservation(
                    {"reward": 0.0}, TERMINAL if last else RUNNING, {"obs": seen, "state": state}
                )
            },
            {} if last else {1: DictResponse({"actions": [0.0]}, {})},
        )
    found = listed(table.sequence(1))
    assert found["obs"] == [[0, 0], [1, 1], [2, 2]]
    assert found["state"] == [[0, 0], [-1, -1], [-2, -2]]


def test_scalars_tags_and_what_has_no_column(make_table) -> None:
    table = make_table(
        columns=columns(Column("log_prob", (), "float32"), TagColumn("task", (), "int64"))
    )
    proxy = MemoryTableProxy(table)
    for step in range(2):
        proxy.add(
            {
                1: DictObservation(
                    {"reward": 0.0, "other": 3.0},
                    RUNNING if step else INITIAL,
                    {"obs": [1.0, 2.0], "task": 8, "camera": np.zeros((9, 9))},
                )
            },
            {1: DictResponse({"actions": [0.0], "entropy": [1.0]}, {"log_prob": -0.5 * step})},
        )
    proxy.add(
        {1: DictObservation({"reward": 1.0}, TERMINAL, {"obs": [1.0, 2.0], "next_obs": 0})}, {}
    )
    found = listed(table.sequence(1))
    assert found["log_prob"] == [0, -0.5]
    assert found["task"] == 8
    assert found["rewards"] == [[0], [1]]


# -- steps that do not follow each other ---------------------------------------------------------


def test_one_met_in_the_middle_begins_there(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    for step in (6, 7):
        proxy.add({1: observation(1, step, RUNNING)}, {1: response(1, step)})
    proxy.add({1: observation(1, 8, TERMINAL)}, {})
    found = listed(table.sequence(1))
    assert found["obs"] == [[1, 6], [1, 7], [1, 8]]
    assert found["rewards"] == [[pytest.approx(1.6)], [pytest.approx(1.7)]]


def test_one_that_ends_without_a_beginning_is_passed_over(make_table, caplog) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    with caplog.at_level(logging.WARNING, "shmtable"):
        proxy.add({4: observation(4, 5, TERMINAL)}, {})
    assert "agent 4 has ended and had not begun" in caplog.text
    assert table.size() == 0
    assert proxy.is_initial(4)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ((observation(2, 1, RUNNING), None), "agent 2: its observation is RUNNING, and there is"),
        ((observation(2, 1, INITIAL), response(2, 1)), "INITIAL, and its last episode is still"),
        (
            (DictObservation({}, RUNNING, {"obs": [0.0, 0.0]}), response(2, 1)),
            "RUNNING, and has no 'reward'",
        ),
        (
            (SimpleNamespace(episode_state="OVER", rewards={}, array_data={}), response(2, 1)),
            "agent 2: episode_state is 'OVER'; give one of RUNNING, INTERR",
        ),
    ],
)
def test_what_does_not_follow_is_refused_and_nobodys_step_taken(
    make_table, wrong: Any, text: str
) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    agents = (1, 2)
    start = {agent: observation(agent, 0, INITIAL) for agent in agents}
    proxy.add(start, {agent: response(agent, 0) for agent in agents})
    seen, answer = wrong
    with pytest.raises(SequenceError, match=text):
        proxy.add(
            {1: observation(1, 1, RUNNING), 2: seen},
            {1: response(1, 1)} | ({} if answer is None else {2: answer}),
        )
    for step, state in ((1, RUNNING), (2, TERMINAL)):
        proxy.add(
            {agent: observation(agent, step, state) for agent in agents},
            {agent: response(agent, step) for agent in agents},
        )
    for agent in agents:
        assert table.sequence(agent)["obs"].tolist() == [[agent, 0], [agent, 1], [agent, 2]]


def test_an_open_episode_can_be_discarded(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    proxy.add({1: observation(1, 0, INITIAL)}, {1: response(1, 0)})
    proxy.discard(1)
    proxy.discard(2)
    play(proxy, 1, 2)
    assert table.sequence(1)["actions"].tolist() == [[100], [101]]


# -- the table's word ----------------------------------------------------------------------------


def test_a_refused_episode_is_dropped_and_the_others_are_added(make_table) -> None:
    table = make_table(columns=columns())
    proxy = MemoryTableProxy(table)
    play(proxy, 1, 2)
    for agent in (1, 2):
        proxy.add({agent: observation(agent, 0, INITIAL)}, {agent: response(agent, 0)})
    with pytest.raises(DuplicateIdentityError, match="identity 1"):
        proxy.add({agent: observation(agent, 1, TERMINAL) for agent in (1, 2)}, {})
    proxy.add({}, {})
    assert table.identities().tolist() == [1, 2]
    assert [len(table.sequence(agent)["actions"]) for agent in (1, 2)] == [2, 1]


def test_an_episode_for_which_there_is_no_room_is_tried_again(make_table, monkeypatch) -> None:
    table = make_table(columns=columns(), limiter=Queue(1), sampler=FifoSampleStrategy())
    proxy = MemoryTableProxy(table)
    add = table.add_sequence
    monkeypatch.setattr(table, "add_sequence", lambda *args: add(*args, timeout_s=0))
    play(proxy, 1, 2)
    with pytest.raises(RateLimitedError):
        play(proxy, 2, 2)
    table.sample(1, 2)
    proxy.add({}, {})
    assert table.identities().tolist() == [2]


def test_identities_may_be_chosen(make_table) -> None:
    table = make_table(columns=columns())
    numbers = itertools.count(1000)
    proxy = MemoryTableProxy(table, identity_of=lambda agent: 10 * next(numbers) + agent)
    for agent in (1, 2, 1):
        play(proxy, agent, 1)
    assert table.identities().tolist() == [10_001, 10_012, 10_021]


def test_it_passes_on_what_belongs_to_the_table(make_table, tmp_path) -> None:
    table = make_table(columns=columns(), maxlen=10)
    proxy = MemoryTableProxy(table, name="replay")
    assert proxy.name == "replay"
    assert MemoryTableProxy(table).name == "memproxy"
    play(proxy, 1, 3)
    proxy.resize(20)
    assert table.maxlen == 20
    assert proxy.store(tmp_path / "t")
    with make_table(columns=columns()) as other:
        other.restore(tmp_path / "t")
        assert other.identities().tolist() == [1]


def test_what_cannot_be(make_table) -> None:
    table = make_table(columns=columns())
    with pytest.raises(SpecError, match=r"needs a tag 'terminal'.*TagColumn\('terminal'"):
        MemoryTableProxy(table, use_terminal=True)
    with pytest.raises(SpecError, match="minimum_length_threshold is -1"):
        MemoryTableProxy(table, -1)


# -- in worker processes -------------------------------------------------------------------------


def _act(table: Any, worker: int) -> None:
    proxy = MemoryTableProxy(table, identity_of=lambda agent: worker << 32 | agent)
    for agent in range(20):
        play(proxy, agent, 1 + agent % 4)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_worker_may_have_one(make_table, method: str) -> None:
    table = make_table(columns=columns())
    with Crew(method) as crew:
        for worker in (1, 2):
            crew.add(_act, table, worker)
        crew.go()
        crew.results()
    assert table.stats().sequences == 40
    for worker, agent in itertools.product((1, 2), range(20)):
        found = table.sequence(worker << 32 | agent)
        steps = range(2 + agent % 4)
        assert found["obs"].tolist() == [[agent, step] for step in steps]


def _act_and_wait(table: Any) -> None:
    proxy = MemoryTableProxy(table)
    play(proxy, 1, 3)
    proxy.add({2: observation(2, 0, INITIAL)}, {2: response(2, 0)})
    link().tell("acting")
    link().hear()


def test_of_a_killed_worker_the_finished_episodes_stay(make_table) -> None:
    table = make_table(columns=columns())
    with Crew("fork") as crew:
        worker = crew.add(_act_and_wait, table)
        crew.go()
        assert worker.hear() == "acting"
        worker.kill()
        worker.join()
    assert table.identities().tolist() == [1]
    assert table.check() == []
