"""Gymnasium's spaces as columns, and values of these spaces as what goes into the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shmtable.columns import Column, VirtualColumn
from shmtable.errors import SpecError
from shmtable.integrations.needed import needed
from shmtable.mappers import NextElementMapper

with needed("gymnasium", extra="gymnasium"):
    from gymnasium import spaces

#: Where a table has these spaces' columns; every name of a part begins with one of them.
OBSERVATION = "obs"
ACTION = "actions"
#: Stored for every step beside observation and action.
REWARD = "rewards"
TERMINATED = "terminated"
TRUNCATED = "truncated"

Space = spaces.Space[Any]


def columns_from_spaces(
    observation_space: Space,
    action_space: Space,
    *,
    next_observations: bool = True,
) -> list[Column]:
    """The columns of a table for an environment with these spaces.

    ``Box``, ``Discrete``, ``MultiDiscrete`` and ``MultiBinary`` become one column each, of the
    space's shape and dtype: "obs" and "actions". Of ``Dict`` and ``Tuple`` each part becomes a
    column, named by the way to it: "obs.camera", "obs.arm.joints", "actions.0". Beside them stand
    "rewards" (float32), "terminated" and "truncated" (bool), of shape ().

    Make the table with ``length_key="rewards"`` if the actions are a ``Dict`` or ``Tuple``.

    Args:
        observation_space: of one environment; a vector environment's
            ``single_observation_space``.
        action_space: likewise.
        next_observations: for each observation column a virtual one, ``"next_" + name``, with what
            was observed after the step; sequences then bring one observation more than steps.

    Raises:
        SpecError: a space without a fixed shape, or two parts whose columns have one name.
    """
    observations = [_column(name, leaf) for name, leaf in leaves(observation_space, OBSERVATION)]
    columns = [
        *observations,
        *(_column(name, leaf) for name, leaf in leaves(action_space, ACTION)),
        Column(REWARD, (), "float32"),
        Column(TERMINATED, (), "bool"),
        Column(TRUNCATED, (), "bool"),
    ]
    if next_observations:
        columns += [
            VirtualColumn(
                f"next_{column.name}", column.shape, column.dtype, column.name, NextElementMapper()
            )
            for column in observations
        ]
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(
                f"two parts of the spaces would be the column '{name}'; rename one, for example "
                "without a dot in its key",
                column=name,
            )
    return columns


def leaves(space: Space, name: str) -> Iterator[tuple[str, Space]]:
    """The parts of a space that are one array each, with their columns' names.

    Raises:
        SpecError: a part without a fixed shape, or without parts.
    """
    parts = _parts(space)
    if parts is None:
        if not isinstance(
            space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        ):
            raise SpecError(
                f"column '{name}': a {type(space).__name__} space has no fixed shape, and a column "
                "needs one; wrap the environment so that it gives arrays of one shape, for example "
                "padded ones with a mask",
                column=name,
            )
        yield name, space
        return
    if not parts:
        raise SpecError(
            f"column '{name}': an empty {type(space).__name__} space has nothing to store; "
            "leave it out of the environment's space",
            column=name,
        )
    for key, part in parts.items():
        yield from leaves(part, f"{name}.{key}")


def column_names(space: Space, name: str) -> Iterator[str]:
    """The names of a space's columns; those that no column can be made for included."""
    parts = _parts(space)
    if parts is None:
        yield name
    else:
        for key, part in parts.items():
            yield from column_names(part, f"{name}.{key}")


def flattened(space: Space, value: Any, name: str) -> dict[str, Any]:
    """A value of a space, or a batch of them, as ``{column name: array}``.

    Args:
        space: of one value.
        value: as an environment gives it; a batch as a vector environment does, its arrays having
            more axes in front.
        name: where the space's columns begin.
    """
    parts = _parts(space)
    if parts is None:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in parts.items():
        flat.update(flattened(part, value[key], f"{name}.{key}"))
    return flat


def nested(space: Space, columns: Callable[[str], Any], name: str, prefix: str = "") -> Any:
    """The way back: columns as a value of the space, dictionaries and tuples of arrays.

    Args:
        space: of one value.
        columns: gives what is under a column's name, such as the ``__getitem__`` of a sample.
        name: where the space's columns begin.
        prefix: before every column's name, such as ``"next_"``.
    """
    parts = _parts(space)
    if parts is None:
        return columns(f"{prefix}{name}")
    values = {key: nested(part, columns, f"{name}.{key}", prefix) for key, part in parts.items()}
    return values if isinstance(space, spaces.Dict) else tuple(values.values())


def _parts(space: Space) -> dict[Any, Space] | None:
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, spaces.Tuple):
        return dict(enumerate(space.spaces))
    return None


def _column(name: str, space: Any) -> Column:
    return Column(name, space.shape, space.dtype)
