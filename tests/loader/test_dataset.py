"""The dataset, in workers of real data loaders."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from shmtable import (
    ArrayMemoryTable,
    DictObsMemoryTable,
    EmptyTableError,
    MemoryDataset,
    PrioritizedSampleStrategy,
    SampleResult,
    SpecError,
)
from tests.tables import small_sequence, torn_windows

# More workers than cores are no mistake here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
SEQUENCES, LENGTH = 40, 25
Drawn = list[list[tuple[int, int]]]


@pytest.fixture
def table(make_table) -> Any:
    """A thousand transitions."""
    table = make_table(seed=3, maxlen=SEQUENCES * LENGTH)
    for identity in range(SEQUENCES):
        table.add_sequence(identity, small_sequence(identity, LENGTH))
    return table


def loader(dataset: Any, workers: int = 0, method: str | None = None, **options: Any) -> Any:
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=method if workers else None,
        **options,
    )


def drawn(batches: Any) -> Drawn:
    """Identity and offset of each window, for each batch."""
    return [
        list(zip(b.points.identities.tolist(), b.points.offsets.tolist(), strict=True))
        for b in batches
    ]


def attached(table: ArrayMemoryTable) -> int:
    """Entries of processes that have the table open, dead ones included."""
    return len(table._core.attachments.all())


@pytest.mark.parametrize(
    ("workers", "method"), [(0, None), (1, "fork"), (3, "fork"), (2, "spawn"), (1, "forkserver")]
)
def test_epochs_are_split_over_workers_and_leave_nothing(
    table: Any, workers: int, method: str | None
) -> None:
    dataset = MemoryDataset(table, 8, 4, batches=10)
    batches = loader(dataset, workers, method)
    assert len(batches) == 10
    epochs = 2 if method in (None, "fork") else 1  # others take seconds to start
    for _ in range(epochs):
        epoch = list(batches)
        assert len(epoch) == 10
        for sample in epoch:
            assert isinstance(sample, SampleResult)
            assert torn_windows(sample, 4) == []
        assert len(set(map(str, drawn(epoch)))) == 10
        assert attached(table) == 1
    assert table.stats().windows_sampled == epochs * 10 * 8


def test_points_and_weights_come_with_samples(make_table) -> None:
    table = make_table(sampler=PrioritizedSampleStrategy())
    for identity in range(5):
        table.add_sequence(identity, small_sequence(identity, 10))
    for sample in loader(MemoryDataset(table, 8, 4, batches=4), 2, "fork"):
        assert sample.weights.shape == (8,)
        assert table.update_priorities(sample.points, torch.rand(8)) == 8


class Space:
    """As much of a space as a table asks for."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype = shape, "float32"


class Spaces:
    """As much of an environment's spaces as a table asks for."""

    rewards = None
    actions = Space(2)

    class state:
        spaces = {"features": Space(3)}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_adaptors_run_in_the_workers(method: str) -> None:
    with DictObsMemoryTable(spaces=Spaces, maxlen=100) as table:
        table.add_sequence(
            1,
            {
                "features": torch.rand(11, 3),
                "actions": torch.rand(10, 2),
                "rewards": torch.rand(10, 1),
            },
        )
        for sample in loader(MemoryDataset(table, 4, 2, batches=2), 1, method):
            assert sample["observation"]["features"].shape == (8, 3)
        assert table.check() == []


# -- random streams ------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [False, True])
def test_without_a_seed_no_worker_and_no_epoch_repeats_another(
    table: Any, persistent: bool
) -> None:
    torch.manual_seed(0)
    batches = loader(
        MemoryDataset(table, 16, 1, batches=6), 3, "fork", persistent_workers=persistent
    )
    epochs = [drawn(batches) for _ in range(3)]
    again = drawn(loader(MemoryDataset(table, 16, 1, batches=6), 3, "fork"))
    everything = [str(batch) for epoch in (*epochs, again) for batch in epoch]
    assert len(set(everything)) == 4 * 6


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_with_a_seed_epochs_differ_and_come_again(
    table: Any, workers: int, persistent: bool
) -> None:
    options = {"persistent_workers": True} if persistent and workers else {}

    def epochs(seed: int) -> list[Drawn]:
        batches = loader(
            MemoryDataset(table, 16, 1, batches=6, seed=seed), workers, "fork", **options
        )
        return [drawn(batches) for _ in range(3)]

    first = epochs(5)
    assert len({str(batch) for epoch in first for batch in epoch}) == 3 * 6
    assert epochs(5) == first
    assert epochs(6) != first


def test_the_way_workers_are_started_does_not_change_seeded_draws(table: Any) -> None:
    streams = [
        drawn(loader(MemoryDataset(table, 8, 2, batches=5, seed=1), 2, method))
        for method in ("fork", "spawn")
    ]
    assert streams[0] == streams[1]


def test_drawing_without_workers_leaves_the_tables_own_stream_alone(make_table) -> None:
    streams = []
    for draws in (0, 3):
        table = make_table(seed=3)
        table.add_sequence(1, small_sequence(1, 200))
        list(itertools.islice(iter(MemoryDataset(table, 8, 1, batches=5, seed=1)), draws))
        streams.append(table.sample(16, 1).points.offsets.tolist())
    assert streams[0] == streams[1]


# -- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_leaving_an_epoch_early_leaves_nothing(table: Any, method: str) -> None:
    batches = iter(loader(MemoryDataset(table, 8, 4, batches=1000), 2, method))
    next(batches)
    del batches
    # A worker that torch found still starting, it has ended by a signal.
    assert all(other.is_gone() for other in table._core.attachments.others())
    assert table.check() == []


class Dying(MemoryDataset):
    """Whose first worker is killed in the middle of an epoch.

    Not at any moment: a worker that is killed while it asks torch's own event whether to go on
    leaves that event's lock taken, and the loop waits for ever.
    """

    def __iter__(self) -> Iterator[Any]:
        for number, sample in enumerate(super().__iter__()):
            if number == 3 and get_worker_info().id == 0:
                time.sleep(1.0)  # until all that was made has been handed over
                os.kill(os.getpid(), signal.SIGKILL)
            yield sample


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_a_killed_worker_fails_the_epoch_and_not_the_table(
    table: Any, method: str, workers: int
) -> None:
    batches = iter(loader(Dying(table, 8, 4, batches=100_000), workers, method))
    victim = batches._workers[0].pid
    # torch says which worker died, or meets a batch whose memory that worker can pass on no more.
    # Then it still says so: in a signal handler, and so wherever this thread is.
    try:
        for _ in batches:
            pass
    except RuntimeError as error:
        assert str(victim) in str(error)  # noqa: PT017 - one of several that may come
    except (OSError, EOFError):
        with suppress(RuntimeError):
            batches._workers[0].join(30.0)
    else:
        pytest.fail("the epoch went on to its end")
    del batches
    gc.collect()  # the traceback held the other worker
    assert table.check() == []
    table.add_sequence(1000, small_sequence(1000, LENGTH))
    for sample in loader(MemoryDataset(table, 8, 4, batches=6), 2, "fork"):
        assert torn_windows(sample, 4) == []


class Fussy(MemoryDataset):
    """Says which worker drew, and raises where it is told to."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        for sample in super().__iter__():
            yield (info.id, len(sample.points))


def test_shares_differ_by_one_at_most(table: Any) -> None:
    workers = [worker for worker, _ in loader(Fussy(table, 2, 2, batches=8), 3, "fork")]
    assert sorted(workers) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_errors_of_workers_come_to_the_loop(make_table) -> None:
    table = make_table()
    with pytest.raises(EmptyTableError, match="the table is empty"):
        list(loader(MemoryDataset(table, 2, 2, batches=4), 1, "fork"))
    with pytest.raises(EmptyTableError):
        list(MemoryDataset(table, 2, 2, batches=4))
    gc.collect()  # the traceback held the workers


def test_a_dataset_can_be_copied_and_pickled(table: Any) -> None:
    dataset = MemoryDataset(table, 2, 2, batches=4)
    for twin in (copy.copy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert len(list(twin)) == 4
        if twin.memory_table is not table:
            twin.memory_table.close()


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((0, 1, 1), {}, "rollout_count is 0"),
        ((1, 0, 1), {}, "rollout_length is 0"),
        ((1, 1, 0), {}, "batches is 0"),
        ((1, 1, 1), {"seed": -1}, "seed is -1"),
        ((1, 1, 1), {"seed": "x"}, "seed is 'x'"),
    ],
)
def test_what_cannot_be(make_table, arguments: Any, options: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MemoryDataset(make_table(), *arguments, **options)


def test_only_tables_that_workers_can_attach_to() -> None:
    with pytest.raises(SpecError, match="memory_table is a dict"):
        MemoryDataset({}, 1, 1, 1)  # type: ignore[arg-type]
