"""Gymnasium: spaces as columns, and vector environments that fill a table from processes.

Needs the extra: ``pip install 'shmtable[gymnasium]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from shmtable.crew import Crew, Death
from shmtable.errors import SpecError, WaitTimeoutError
from shmtable.integrations.acting import Acting, Policy
from shmtable.integrations.episodes import EpisodeRecorder
from shmtable.integrations.finished import FinishedEpisodes
from shmtable.integrations.needed import needed
from shmtable.integrations.spaces import columns_from_spaces, flattened, nested
from shmtable.protocols.arguments import as_int64, at_least_one
from shmtable.table import ArrayMemoryTable

with needed("gymnasium", extra="gymnasium"):
    from gymnasium.vector import VectorEnv

__all__ = [
    "Collector",
    "EpisodeRecorder",
    "FinishedEpisodes",
    "columns_from_spaces",
    "flattened",
    "nested",
]

#: Makes the vector environment of one worker, in its process.
MakeEnvironments = Callable[[], VectorEnv[Any, Any, Any]]


class Collector:
    """Worker processes that play vector environments and add what they see to a table.

    The workers live as long as the ``with`` block. A worker adds each episode as a sequence when it
    ends, under an identity that its writer makes up; what it was in the middle of when the block is
    left, or when it was killed, is lost. A worker that dies stops none of the others.

    Args:
        table: with the columns of :func:`columns_from_spaces`; those among "rewards",
            "terminated" and "truncated" that it has not are left out. Other columns are the
            policy's to fill.
        make_environments: called in each worker; importable or picklable, for example
            ``functools.partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)``. Inside a worker
            environments cannot start processes of their own (``vectorization_mode="async"``).
        policy: called in each worker with the observations of its environments, returns their
            actions: a picklable function or object, called without gradients. A network in it
            whose ``share_memory()`` was called before follows what the learner does to it. None
            for random actions. If the table has columns beside those of the environments, it
            returns ``(actions, {name: values})``, the values [N, *shape] of N environments. If it
            has a method ``reset``, that is called with a bool [N], true for the environments in
            which an episode begins, before the observations it begins with are shown; first with
            all of them.
        workers: processes.
        seed: worker number i resets its environments with a seed derived from this and i.
        longest: episodes longer than this become several sequences, all but the last of which
            count as truncated; ``table.maxlen`` if less.
        overlap: steps that two parts of such an episode share; less than they have.

    Attributes:
        episodes: returns and lengths of the last 100 episodes that ended in any of the workers.

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
        overlap: int = 0,
    ) -> None:
        workers, longest = at_least_one("workers", workers), at_least_one("longest", longest)
        if not callable(make_environments):
            raise SpecError(
                f"make_environments is {make_environments!r:.60}; give a function that makes a "
                "vector environment, since each worker needs its own"
            )
        if policy is not None and not callable(policy):
            raise SpecError(
                f"policy is {policy!r:.60}; give a function from observations to actions, or None "
                "for random ones"
            )
        overlap, most = as_int64("overlap", overlap), min(longest, table.maxlen)
        if not 0 <= overlap < most:
            raise SpecError(
                f"overlap is {overlap}, the parts of a long episode have {most} steps (longest); "
                f"give 0 to {most - 1}"
            )
        self.episodes = FinishedEpisodes()
        root = int(np.random.SeedSequence(seed).generate_state(1)[0])
        plan = (table, self.episodes, make_environments, policy, root, longest, overlap)
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
    episodes: FinishedEpisodes,
    make_environments: MakeEnvironments,
    policy: Policy | None,
    root: int,
    longest: int,
    overlap: int,
) -> None:
    """Plays until the line is closed; runs in a process of its own."""
    torch.set_num_threads(1)  # the processes share the cores; more threads get in the way
    seed = int(np.random.SeedSequence([root, index]).generate_state(1)[0] >> 1)
    torch.manual_seed(seed)
    environments = make_environments()
    recorder = EpisodeRecorder(
        environments, table, longest, lambda: not line.poll(), overlap=overlap
    )
    act = Acting(environments, policy, recorder.own)
    environments.action_space.seed(seed)
    try:
        observations = recorder.reset(seed)
        while not line.poll():
            actions, columns = act(observations, recorder.begun)
            observations = recorder.step(actions, columns)
            for total, length in recorder.ended:
                episodes.note(total, length)
    except WaitTimeoutError:
        pass  # held back until nobody wanted it any more
    finally:
        recorder.close()
        environments.close()
        episodes.close()
        table.close()
