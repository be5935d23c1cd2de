"""Tables for the usual ways to learn: what each needs, put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shmtable.columns import Column, VirtualColumn
from shmtable.limiters import Queue
from shmtable.mappers import BurnIn
from shmtable.protocols.arguments import at_least_one
from shmtable.strategies import (
    FifoEjectionStrategy,
    FifoSampleStrategy,
    PrioritizedSampleStrategy,
    UniformSampleStrategy,
)
from shmtable.table import ArrayMemoryTable


def uniform_replay(columns: Iterable[Column], maxlen: int, **options: Any) -> ArrayMemoryTable:
    """A table for DQN, SAC and their like: every window equally likely, the oldest go first.

    Args:
        columns: the columns.
        maxlen: most transitions.
        **options: of :class:`ArrayMemoryTable`; they come before what is chosen here.
    """
    chosen = {"sampler": UniformSampleStrategy(), "ejector": FifoEjectionStrategy()}
    return ArrayMemoryTable(columns=list(columns), maxlen=maxlen, **{**chosen, **options})


def prioritized_replay(
    columns: Iterable[Column],
    maxlen: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.4,
    **options: Any,
) -> ArrayMemoryTable:
    """A table for prioritized experience replay (Schaul et al. 2016, proportional variant).

    Give the errors to ``table.update_priorities(sample.points, errors)``, weigh the loss with
    ``sample.weights``, and raise ``table.sampler.beta`` to 1 in the course of training.

    Args:
        columns: the columns.
        maxlen: most transitions.
        alpha: how much priorities count.
        beta: how much the weights correct for it, at first.
        **options: of :class:`ArrayMemoryTable`; they come before what is chosen here.
    """
    sampler = PrioritizedSampleStrategy(alpha=alpha, beta=beta)
    return uniform_replay(columns, maxlen, **{"sampler": sampler, **options})


def r2d2_replay(
    columns: Iterable[Column],
    maxlen: int,
    *,
    burn_in: int = 0,
    alpha: float = 0.9,
    beta: float = 0.6,
    eta: float = 0.9,
    **options: Any,
) -> ArrayMemoryTable:
    """A table for recurrent replay (Kapturowski et al. 2019, R2D2).

    Add sequences of equal length, overlapping as you like, each with the priority that its actor
    computes. Declare the stored recurrent state as ``Column(..., first_only=True)``. Samples are
    ``(count, sequence_length, *shape)``; of errors per transition given to ``update_priorities``,
    ``eta`` of the highest and the rest of the mean make the sequence's priority.

    Args:
        columns: the columns.
        maxlen: most transitions.
        burn_in: steps at the start of each window that only warm the network up; with any, samples
            have the boolean column "burn_in", true on them.
        alpha: how much priorities count.
        beta: how much the weights correct for it.
        eta: see above.
        **options: of :class:`ArrayMemoryTable`; they come before what is chosen here.
    """
    columns = list(columns)
    if burn_in:
        target = options.get("length_key", "actions")
        columns.append(
            VirtualColumn("burn_in", (), "bool", target_name=target, mapper=BurnIn(burn_in))
        )
    sampler = PrioritizedSampleStrategy(alpha=alpha, beta=beta, per="sequence", eta=eta)
    chosen = {"sampler": sampler, "layout": "batch_time"}
    return uniform_replay(columns, maxlen, **{**chosen, **options})


def on_policy_queue(
    columns: Iterable[Column], size: int, steps: int, **options: Any
) -> ArrayMemoryTable:
    """A table that hands every sequence out once, in order: for IMPALA, PPO and their like.

    Actors add unrolls and wait while ``size`` of them have not been sampled; the learner samples
    whole unrolls, ``(count, steps, *shape)``, and waits while there are fewer than it asks for
    (give its ``sample`` a ``timeout_s``).

    Args:
        columns: the columns.
        size: sequences that wait at most.
        steps: transitions of a sequence at most.
        **options: of :class:`ArrayMemoryTable`; they come before what is chosen here.
    """
    size, steps = at_least_one("size", size), at_least_one("steps", steps)
    chosen = {
        "sampler": FifoSampleStrategy(),
        "limiter": Queue(size),
        "layout": "batch_time",
        "max_sequences": size,
    }
    return uniform_replay(columns, size * steps, **{**chosen, **options})
