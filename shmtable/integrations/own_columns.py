"""The columns of a table that no environment fills, but whoever acts in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import TagColumn, VirtualColumn, as_step
from shmtable.errors import SequenceError, SpecError
from shmtable.integrations.needed import needed
from shmtable.integrations.spaces import (
    ACTION,
    OBSERVATION,
    REWARD,
    TERMINATED,
    TRUNCATED,
    column_names,
)
from shmtable.table import ArrayMemoryTable

with needed("gymnasium", extra="gymnasium"):
    from gymnasium.vector import VectorEnv


class OwnColumns:
    """The columns that come with the actions, and their values at a step.

    Args:
        table: some of whose columns are those of :func:`columns_from_spaces`.
        environments: for which it is.

    Attributes:
        names: of the columns; what the policy does not give, nobody does.

    Raises:
        SpecError: a column that is looked ahead in: nobody acts after an episode's last step.
    """

    def __init__(self, table: ArrayMemoryTable, environments: VectorEnv[Any, Any, Any]) -> None:
        theirs = {
            *column_names(environments.single_observation_space, OBSERVATION),
            *column_names(environments.single_action_space, ACTION),
            *(REWARD, TERMINATED, TRUNCATED),
        }
        self._count = environments.num_envs
        # At a step there is one value for each environment.
        self._columns = {
            column.name: replace(column, shape=(self._count, *column.shape))
            for column in table.columns
            if column.name not in theirs and not isinstance(column, (TagColumn, VirtualColumn))
        }
        self.names = list(self._columns)
        for column in table.columns:
            if isinstance(column, VirtualColumn) and column.mapper.look_ahead:
                self._refuse(column.target_name, column.name)

    def values(self, given: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """What came with the actions, checked and converted: [N, *shape] of each column.

        Raises:
            SequenceError: a name too many or too few, or a value that does not fit.
        """
        for name in given:
            if name not in self._columns:
                raise SequenceError(
                    f"column {name!r}: came with the actions, and the table has no such column "
                    f"beside those of the environments (but {', '.join(self.names) or 'none'}); "
                    "declare it, or leave it out",
                    column=name,
                )
        values = {}
        for name, column in self._columns.items():
            if name not in given:
                raise SequenceError(
                    f"column '{name}': no environment fills it, and it did not come with the "
                    f"actions; have the policy return (actions, {{'{name}': values}}), or leave "
                    "the column out of the table",
                    column=name,
                )
            shape = tuple(np.shape(given[name]))
            if shape != column.shape:
                raise SequenceError(
                    f"column '{name}': came with shape {shape}; give shape {column.shape}, one "
                    f"value of shape {column.shape[1:]} for each of {self._count} environments",
                    column=name,
                    shape=shape,
                )
            values[name] = as_step(column, given[name])
        return values

    def _refuse(self, name: str, virtual: str) -> None:
        if name in self._columns:
            raise SpecError(
                f"column '{name}': '{virtual}' needs what came after an episode's last step, where "
                f"the policy does not act; leave '{virtual}' out, and compute it from 'next_obs' "
                "where you learn",
                column=name,
            )
