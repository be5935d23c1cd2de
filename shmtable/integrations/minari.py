"""Minari: datasets into tables, and tables as datasets.

Needs the extra: ``pip install 'shmtable[minari]'``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from shmtable.columns import Column
from shmtable.errors import EmptyTableError, SpecError, UnknownIdentityError
from shmtable.integrations.needed import needed
from shmtable.integrations.spaces import (
    ACTION,
    OBSERVATION,
    REWARD,
    TERMINATED,
    TRUNCATED,
    columns_from_spaces,
    flattened,
    leaves,
    nested,
)
from shmtable.table import ArrayMemoryTable

with needed("minari", extra="minari"):
    import minari
    from minari.data_collector import EpisodeBuffer

__all__ = ["add_dataset", "columns_from_dataset", "dataset_from_table"]

_AT_ONCE = 64  # episodes in memory at a time


def columns_from_dataset(
    dataset: minari.MinariDataset, *, next_observations: bool = True
) -> list[Column]:
    """The columns of a table for a dataset; see ``columns_from_spaces``.

    Args:
        dataset: as ``minari.load_dataset`` gives it.
        next_observations: as there.

    Raises:
        SpecError: a space without a fixed shape.
    """
    return columns_from_spaces(
        dataset.observation_space, dataset.action_space, next_observations=next_observations
    )


def add_dataset(
    table: ArrayMemoryTable,
    dataset: minari.MinariDataset,
    *,
    first_identity: int = 0,
    episodes: Iterable[int] | None = None,
) -> int:
    """Add the episodes of a dataset, each as one sequence.

    Args:
        table: with the columns of :func:`columns_from_dataset`; those among "rewards",
            "terminated" and "truncated" that it has not are left out.
        dataset: as ``minari.load_dataset`` gives it.
        first_identity: added to an episode's number in the dataset to make its identity.
        episodes: the numbers of those wanted; all if None.

    Returns:
        How many were added.

    Raises:
        SequenceError: an episode that does not fit, for example one longer than ``table.maxlen``;
            those before it are in the table.
    """
    left_out = {REWARD, TERMINATED, TRUNCATED} - {column.name for column in table.columns}
    added = 0
    for episode in dataset.iterate_episodes(None if episodes is None else list(episodes)):
        sequence = flattened(dataset.observation_space, episode.observations, OBSERVATION)
        sequence |= flattened(dataset.action_space, episode.actions, ACTION)
        sequence[REWARD] = episode.rewards
        sequence[TERMINATED] = episode.terminations
        sequence[TRUNCATED] = episode.truncations
        for name in left_out:
            del sequence[name]
        table.add_sequence(first_identity + int(episode.id), sequence)
        added += 1
    return added


def dataset_from_table(
    table: ArrayMemoryTable,
    dataset_id: str,
    observation_space: Any,
    action_space: Any,
    **options: Any,
) -> minari.MinariDataset:
    """Write a table as a new local dataset, each sequence as one episode, the oldest first.

    Others may go on using the table; sequences that leave it meanwhile are passed over.

    Args:
        table: with the columns of ``columns_from_spaces`` for these spaces.
        dataset_id: its name, such as "cartpole/replay-v0".
        observation_space: of one environment.
        action_space: of one environment.
        **options: of ``minari.create_dataset_from_buffers``: ``env``, ``author``,
            ``jpeg_encoding`` (Minari compresses images with loss unless it is False), ...

    Raises:
        SpecError: a column is missing.
        EmptyTableError: no sequence to write.
    """
    names = {column.name for column in table.columns}
    parts = [*leaves(observation_space, OBSERVATION), *leaves(action_space, ACTION)]
    for name in (*(name for name, _ in parts), REWARD, TERMINATED, TRUNCATED):
        if name not in names:
            raise SpecError(
                f"the table has no column '{name}', which an episode of these spaces needs; it has "
                f"{', '.join(sorted(names))}; make it with columns_from_spaces",
                column=name,
            )
    found = _episodes(table, observation_space, action_space)
    first = list(islice(found, _AT_ONCE))
    if not first:
        raise EmptyTableError("the table has no sequences; add some before writing a dataset")
    made = minari.create_dataset_from_buffers(
        dataset_id,
        first,
        observation_space=observation_space,
        action_space=action_space,
        **options,
    )
    for episode in found:
        made.update_dataset_from_buffer([episode, *islice(found, _AT_ONCE - 1)])
    return made


def _episodes(
    table: ArrayMemoryTable, observation_space: Any, action_space: Any
) -> Iterator[EpisodeBuffer]:
    for identity in table.identities().tolist():
        try:
            sequence = table.sequence(identity)
        except UnknownIdentityError:  # ejected since
            continue
        rows = {name: np.asarray(tensor) for name, tensor in sequence.items()}
        steps = len(rows[REWARD])
        for name, _ in leaves(observation_space, OBSERVATION):
            if len(rows[name]) != steps + 1:
                raise SpecError(
                    f"sequence {identity} has {len(rows[name])} rows of '{name}' for {steps} "
                    "steps; an episode has one observation more than steps: add sequences so",
                    identity=identity,
                )
        yield EpisodeBuffer(
            observations=nested(observation_space, rows.__getitem__, OBSERVATION),
            actions=nested(action_space, rows.__getitem__, ACTION),
            rewards=rows[REWARD],
            terminations=rows[TERMINATED],
            truncations=rows[TRUNCATED],
        )
