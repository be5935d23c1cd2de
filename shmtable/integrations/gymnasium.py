"""Gymnasium: spaces as columns, and vector environments that fill a table from processes.

Needs the extra: ``pip install 'shmtable[gymnasium]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.crew import Crew, Death
from shmtable.errors import SpecError, WaitTimeoutError
from shmtable.integrations.episodes import EpisodeRecorder
from shmtable.integrations.needed import needed
from shmtable.integrations.spaces import columns_from_spaces, flattened, nested
from shmtable.protocols.arguments import at_least_one
from shmtable.table import ArrayMemoryTable

with needed("gymnasium", extra="gymnasium"):
    from gymnasium.vector import VectorEnv

__all__ = ["Collector", "EpisodeRecorder", "columns_from_spaces", "flattened", "nested"]

#: Makes the vector environment of one worker, in its process.
MakeEnvironments = Callable[[], VectorEnv[Any, Any, Any]]
#: Observations of all environments of a worker in, their actions out.
Policy = Callable[[Any], Any]


class Collector:
    """Worker processes that play vector environments and add what they see to a table.

    The workers live as long as the ``with`` block. A worker adds each episode as a sequence when it
    ends, under an identity that its writer makes up; what it was in the middle of when the block is
    left, or when it was killed, is lost. A worker that dies stops none of the others.

    Args:
        table: with the columns of :func:`columns_from_spaces`; those among "rewards",
            "terminated" and "truncated" that it has not are left out.
        make_environments: called in each worker; importable or picklable, for example
            ``functools.partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)``. Inside a worker
            environments cannot start processes of their own (``vectorization_mode="async"``).
        policy: called in each worker with the observations of its environments, returns their
            actions: a picklable function or object, called without gradients. A network in it
            whose ``share_memory()`` was called before follows what the learner does to it. None
            for random actions.
        workers: processes.
        seed: worker number i resets its environments with a seed derived from this and i.
        longest: episodes longer than this become several sequences, all but the last of which
            count as truncated; ``table.maxlen`` if less.

    Raises:
        SpecError: an argument that cannot be. What the environments or the policy do not like is
            raised in the worker, written to stderr, and among the ``deaths``.
    """

    def __init__(
        self,
        table: ArrayMemoryTable,
        make_environments: MakeEnvironments,
        policy: Policy | None = None,
        *,
        workers: int = 1,
        seed: int | None = None,
        longest: int = 10_000,
    ) -> None:
        workers, longest = at_least_one("workers", workers), at_least_one("longest", longest)
        if not callable(make_environments):
            raise SpecError(
                f"make_environments is {make_environments!r:.60}; give a function that makes a "
                "vector environment, since each worker needs its own"
            )
        root = int(np.random.SeedSequence(seed).generate_state(1)[0])
        plan = (table, make_environments, policy, root, longest)
        self._crew = Crew("collector", workers, _collect, *plan)
        self._deaths: list[Death] = []

    def __enter__(self) -> Collector:
        self._crew.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._crew.__exit__(*exception)

    def __len__(self) -> int:
        """Workers that are alive."""
        self._listen()
        return len(self._crew)

    @property
    def deaths(self) -> list[Death]:
        """The workers that ended though nobody asked them to, in the order they were missed.

        What a worker raised it has written to stderr; ``str`` of a death says how it ended.
        """
        self._listen()
        return list(self._deaths)

    def _listen(self) -> None:
        if len(self._crew):
            self._deaths += self._crew.listen(0.0)


def _collect(
    index: int,
    line: Connection[Any, None],
    table: ArrayMemoryTable,
    make_environments: MakeEnvironments,
    policy: Policy | None,
    root: int,
    longest: int,
) -> None:
    """Plays until the line is closed; runs in a process of its own."""
    torch.set_num_threads(1)  # the processes share the cores; more threads get in the way
    seed = int(np.random.SeedSequence([root, index]).generate_state(1)[0] >> 1)
    torch.manual_seed(seed)
    environments = make_environments()
    recorder = EpisodeRecorder(environments, table, longest, lambda: not line.poll())
    environments.action_space.seed(seed)
    try:
        observations = recorder.reset(seed)
        while not line.poll():
            if policy is None:
                actions = environments.action_space.sample()
            else:
                with torch.no_grad():
                    actions = policy(observations)
                if isinstance(actions, Tensor):
                    actions = actions.cpu().numpy()
            observations = recorder.step(actions)
    except WaitTimeoutError:
        pass  # held back until nobody wanted it any more
    finally:
        recorder.close()
        environments.close()
        table.close()
