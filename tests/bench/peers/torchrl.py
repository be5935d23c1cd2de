"""TorchRL: TensorDict buffers over contiguous storage, with a sampler of slices for windows."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import tensordict
import torch
import torchrl
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import PrioritizedSampler, RandomSampler, SliceSampler

from tests.bench.peers.base import (
    Arrays,
    Call,
    Cannot,
    Setup,
    Shared,
    in_turn,
    sequences,
    unrolled,
)

warnings.filterwarnings("ignore", module="torchrl|tensordict")


def versions() -> dict[str, str]:
    """See ``Peer``."""
    return {
        "torchrl": torchrl.__version__,
        "tensordict": tensordict.__version__,
        "torch": torch.__version__,
    }


def prepared(setup: Setup, arrays: Arrays, number: int) -> TensorDict:
    """A sequence as collectors deliver it: a number for the trajectory, and what comes next."""
    rows = {n: torch.from_numpy(r) for n, r in unrolled(setup.columns, arrays).items()}
    steps = len(rows["actions"])
    batch: dict[str, Any] = {**rows, "trajectory": torch.full((steps,), number)}
    if setup.columns.follows:
        following = {"obs": batch.pop("next_obs"), "done": batch.pop("dones")[:, None]}
        batch["next"] = TensorDict(following, [steps])
    return TensorDict(batch, [steps])


def _prioritized(setup: Setup) -> PrioritizedSampler:
    try:
        return PrioritizedSampler(setup.transitions, alpha=0.6, beta=0.4)
    except RuntimeError as error:
        raise Cannot(f"its compiled part does not load with this torch ({error})") from None


class Buffer:
    """See ``Table``."""

    def __init__(self, setup: Setup, device: str = "cpu") -> None:
        self._setup = setup
        self._storage = LazyTensorStorage(setup.transitions, device=device)
        sampler = _prioritized(setup) if setup.priorities else RandomSampler()
        self._buffer = TensorDictReplayBuffer(
            storage=self._storage, sampler=sampler, batch_size=256
        )
        self._numbers = itertools.count()
        source = sequences(setup, setup.steps)
        for _ in range(setup.transitions // setup.steps):
            self._buffer.extend(prepared(setup, next(source), next(self._numbers)))

    def sampler(self, count: int, length: int) -> Call:
        """See ``Table``."""
        if length == 1:
            buffer = self._buffer
            return lambda: buffer.sample(count)
        # Where trajectories lie is remembered from one sample to the next, as for data at rest;
        # with writers it has to be found anew after every one of them.
        slices = TensorDictReplayBuffer(
            storage=self._storage,
            sampler=SliceSampler(
                slice_len=length, traj_key="trajectory", cache_values=True, strict_length=True
            ),
            batch_size=count * length,
        )
        return slices.sample

    def updater(self, count: int) -> Call:
        """See ``Table``."""
        buffer = self._buffer
        index = in_turn(lambda: buffer.sample(count)["index"])
        priorities = torch.rand(count)
        return lambda: buffer.update_priority(next(index), priorities)

    def adder(self, steps: int, form: str) -> Call:
        """See ``Table``."""
        if form != "arrays":
            raise Cannot("takes one TensorDict, which is ready here")
        source = sequences(self._setup, steps)
        ready = itertools.cycle(
            [prepared(self._setup, next(source), next(self._numbers)) for _ in range(16)]
        )
        buffer = self._buffer
        if steps == 1:
            singles = itertools.cycle([next(ready)[0] for _ in range(16)])
            return lambda: buffer.add(next(singles))
        return lambda: buffer.extend(next(ready))

    def close(self) -> None:
        """See ``Table``."""
        del self._buffer, self._storage


def open(setup: Setup) -> Buffer:  # noqa: A001
    """See ``Peer``."""
    return Buffer(setup)


def writer(buffer: TensorDictReplayBuffer, number: int) -> Call:
    """Adds whole sequences."""
    setup = Setup()
    source = sequences(setup, setup.steps, seed=number)
    ready = itertools.cycle([prepared(setup, next(source), number) for _ in range(16)])
    return lambda: buffer.extend(next(ready))


def share(setup: Setup) -> Shared:
    """See ``Peer``."""
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(setup.transitions),
        sampler=RandomSampler(),
        batch_size=256,
        shared=True,
    )
    first = writer(buffer, 99)
    for _ in range(setup.transitions // setup.steps):
        first()
    return Shared(
        "spawn",
        buffer,
        writer,
        buffer.sample,
        remark="single transitions, writers that were spawned; one lock is held while copying",
    )
