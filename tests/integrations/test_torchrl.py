"""A table behind the interface of TorchRL's replay buffers, beside one of its own."""

from __future__ import annotations

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("torchrl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of parts of its own that will go
    from torchrl.collectors import Collector
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
    from torchrl.envs import GymEnv, SerialEnv

from tensordict import TensorDict

from shmtable import (
    NoWindowError,
    PrioritizedSampleStrategy,
    PriorityError,
    SequenceError,
    SpecError,
    VirtualColumn,
)
from shmtable.integrations.torchrl import TableReplayBuffer, columns_from_tensordict
from tests.integrations.extending import extend
from tests.multiprocess.recipe import Crew

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def batches() -> list[TensorDict]:
    """What TorchRL's collector gives: of one environment, and of two side by side."""
    made = []
    for environment in (
        GymEnv("CartPole-v1"),
        SerialEnv(2, partial(GymEnv, "CartPole-v1")),
    ):
        environment.set_seed(0)
        collector = Collector(environment, None, frames_per_batch=200, total_frames=400)
        made.append([batch.clone() for batch in collector])
        collector.shutdown()
    return made


def table_for(make_table, batch: TensorDict, **options):
    return make_table(
        columns=columns_from_tensordict(batch), maxlen=10_000, length_key="next.done", **options
    )


def rows(batch: TensorDict) -> set[bytes]:
    """Each transition as one value to compare."""
    keys = ["observation", "action"]
    keys += [("next", k) for k in ("observation", "reward", "done", "terminated", "truncated")]
    parts = [batch[key].reshape(batch.numel(), -1).double().numpy() for key in keys]
    return {row.tobytes() for row in np.concatenate(parts, 1)}


def test_columns_are_those_of_a_collector(batches) -> None:
    columns = {column.name: column for column in columns_from_tensordict(batches[0][0])}
    stored = {name for name, c in columns.items() if not isinstance(c, VirtualColumn)}
    assert stored == {
        "observation",
        "action",
        "collector.traj_ids",
        *(f"next.{name}" for name in ("reward", "done", "terminated", "truncated")),
    }
    assert columns["next.observation"].target_name == "observation"
    fewer = columns_from_tensordict(batches[0][0], ["collector.traj_ids", "next.truncated"])
    assert set(columns) - {column.name for column in fewer} == {
        "collector.traj_ids",
        "next.truncated",
    }


@pytest.mark.parametrize("kind", [0, 1], ids=["one environment", "two side by side"])
@pytest.mark.parametrize("flattened", [False, True])
def test_samples_are_those_of_their_own_buffer(make_table, batches, kind, flattened) -> None:
    table = table_for(make_table, batches[kind][0])
    ours = TableReplayBuffer(table, batch_size=8000)
    own = TensorDictReplayBuffer(storage=LazyTensorStorage(10_000), batch_size=8000)
    for batch in batches[kind]:
        data = batch.reshape(-1) if flattened else batch
        ours.extend(data)
        own.extend(batch.reshape(-1))
    assert len(ours) == len(own) == ours.write_count == 400
    mine, theirs = ours.sample(), own.sample()
    assert mine.batch_size == theirs.batch_size
    assert rows(mine) == rows(theirs)
    for key in theirs.keys(include_nested=True, leaves_only=True):
        if key in ("done", "terminated", "truncated", "index"):
            continue
        assert (mine[key].dtype, mine[key].shape) == (theirs[key].dtype, theirs[key].shape), key


@pytest.mark.parametrize("kind", [0, 1], ids=["one environment", "two side by side"])
def test_windows_are_of_one_trajectory_and_in_order(make_table, batches, kind) -> None:
    buffer = TableReplayBuffer(
        table_for(make_table, batches[kind][0]), batch_size=400, sequence_length=4
    )
    buffer.extend(batches[kind][0])
    sample, info = buffer.sample(return_info=True)
    windows = sample.reshape(100, 4)
    torch.testing.assert_close(
        windows["next", "observation"][:, :-1], windows["observation"][:, 1:]
    )
    assert not windows["next", "done"][:, :-1].any()
    numbers = windows["collector", "traj_ids"]
    assert (numbers == numbers[:, :1]).all()
    assert set(numbers.unique().tolist()) <= set(
        batches[kind][0]["collector", "traj_ids"].unique().tolist()
    )
    assert set(info) == {"index"}
    assert buffer.can_sample()
    assert not TableReplayBuffer(buffer.table, sequence_length=400).can_sample(400)


def test_it_says_what_is_in_it(make_table, batches) -> None:
    buffer = TableReplayBuffer(table_for(make_table, batches[0][0]), batch_size=32)
    buffer.extend(batches[0][0])
    assert re.search(r"^TableReplayBuffer\(<.*200 of 10000 .*, batch_size=32\)$", repr(buffer))


def test_single_transitions_are_added_too(make_table, batches) -> None:
    buffer = TableReplayBuffer(table_for(make_table, batches[0][0]), sequence_length=1)
    data = batches[0][0][:20]
    for number in range(20):
        assert buffer.add(data[number]).shape == (1,)
    assert rows(buffer.sample(500)) == rows(data)
    buffer.empty()
    assert len(buffer) == 0


def test_priorities_go_with_what_was_sampled(make_table, batches) -> None:
    sampler = PrioritizedSampleStrategy(alpha=1.0, beta=1.0, epsilon=0.0)
    buffer = TableReplayBuffer(
        table_for(make_table, batches[0][0], sampler=sampler), batch_size=3000
    )
    buffer.extend(batches[0][0])
    sample = buffer.sample()
    # Stratified: of priorities all alike, 15 draws for each of 200 transitions leave none out.
    assert rows(sample) == rows(batches[0][0])
    assert sample["priority_weight"].shape == (3000,)
    wanted = sample["next", "done"].float()  # only the ends of episodes count from now on
    sample["td_error"] = wanted
    buffer.update_tensordict_priority(sample[torch.randperm(3000)])
    assert buffer.sample()["next", "done"].all()
    assert buffer.update_priority(sample["index"], 1.0) == 3000
    assert not buffer.sample()["next", "done"].all()


def test_priorities_may_come_with_the_data(make_table, batches) -> None:
    sampler = PrioritizedSampleStrategy(alpha=1.0)
    buffer = TableReplayBuffer(table_for(make_table, batches[1][0], sampler=sampler))
    data = batches[1][0].clone()
    data["td_error"] = data["next", "done"][..., 0].float()
    buffer.extend(data)
    assert buffer.sample(500)["next", "done"].all()
    buffer.empty()
    buffer.extend(data, update_priority=False)
    assert not buffer.sample(500)["next", "done"].all()


def test_stale_priorities_are_passed_over(make_table, batches) -> None:
    sampler = PrioritizedSampleStrategy()
    buffer = TableReplayBuffer(table_for(make_table, batches[0][0], sampler=sampler))
    buffer.extend(batches[0][0])
    index = buffer.sample(50)["index"]
    buffer.empty()
    buffer.extend(batches[0][1])
    assert buffer.update_priority(index, 5.0) == 0


def test_what_cannot_be_is_refused(make_table, batches) -> None:
    table = table_for(make_table, batches[0][0], sampler=PrioritizedSampleStrategy())
    with pytest.raises(SpecError, match="batch_size is 10; it counts transitions, in windows of 4"):
        TableReplayBuffer(table, batch_size=10, sequence_length=4)
    buffer = TableReplayBuffer(table, sequence_length=4)
    with pytest.raises(SpecError, match="batch_size is None"):
        buffer.sample()
    with pytest.raises(SequenceError, match="no batch size; give .steps., or call add"):
        buffer.extend(batches[0][0][0])
    with pytest.raises(SequenceError, match=r"column 'next.reward': .* no tensor at"):
        buffer.extend(batches[0][0].exclude(("next", "reward")))
    assert len(buffer) == 0
    for number in range(8):
        buffer.add(batches[0][0][number])
    with pytest.raises(NoWindowError):
        buffer.sample(8)
    buffer.extend(batches[0][0])
    index = buffer.sample(8)["index"]
    with pytest.raises(PriorityError, match=r"index has shape \(7, 6\)"):
        buffer.update_priority(index[:7], 1.0)
    with pytest.raises(PriorityError, match="the index mixes windows"):
        buffer.update_priority(index.roll(1, 0), 1.0)


def test_a_file_brings_the_content_back(make_table, batches, tmp_path) -> None:
    buffer = TableReplayBuffer(table_for(make_table, batches[0][0]), batch_size=4000)
    buffer.extend(batches[0][0])
    buffer.dumps(tmp_path / "kept")
    again = TableReplayBuffer(table_for(make_table, batches[0][0]), batch_size=4000)
    again.loads(tmp_path / "kept")
    assert rows(next(iter(again))) == rows(buffer.sample())


def test_other_processes_extend_and_sample_it(make_table, batches) -> None:
    buffer = TableReplayBuffer(table_for(make_table, batches[0][0]), batch_size=8000)
    with Crew("spawn") as crew:
        crew.add(extend, buffer, batches[0][0])
        crew.go()
        buffer.extend(batches[0][1])
        assert crew.results() == [64]
    assert rows(buffer.sample()) == rows(torch.cat(batches[0]))


def test_a_collector_fills_it_by_itself(make_table, batches) -> None:
    buffer = TableReplayBuffer(table_for(make_table, batches[0][0]), batch_size=64)
    collector = Collector(
        GymEnv("CartPole-v1"), None, frames_per_batch=50, total_frames=200, replay_buffer=buffer
    )
    for number, _ in enumerate(collector, 1):
        assert len(buffer) == 50 * number
        assert len(buffer.sample()) == 64
    collector.shutdown()
    assert len(buffer) == 200
