"""Ready-made tables, built from the spaces of an environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from shmtable.adaptors import Adaptor, DictObsAdaptor, TerminalAdaptor
from shmtable.columns import Column, TagColumn, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import NextElementMapper, SyntheticDones
from shmtable.strategies import (
    EjectionStrategy,
    FifoEjectionStrategy,
    SampleStrategy,
    UniformSampleStrategy,
)
from shmtable.table import ArrayMemoryTable

if TYPE_CHECKING:
    from shmtable.columns.spec import DTypeLike

_OBSERVATION = "obs"  # the column's name where the observation space has no names of its own


class DictMemoryTable(ArrayMemoryTable):
    """A table whose samples carry observations as dictionaries.

    The columns of ``obs_keys`` come as ``sample["observation"][key]``, and what follows them, the
    columns ``"next_" + key``, as ``sample["next_observation"][key]``. A process that attaches by
    name passes ``adaptors=`` to have the same; a pickled table brings them.

    Args:
        use_terminal_column: add the tag "terminal", float32, one number per sequence, which stands
            in "masks" on the last transition: 0 where the sequence came to a true end, 1 where it
            was only cut off, and its value goes on. Needs a column "masks".
        obs_keys: the observation columns; each has a virtual column ``"next_" + key``.
        columns: all others too.
        maxlen: most transitions.
        length_key: the column whose rows say how many transitions a sequence has.
        sampler: ``UniformSampleStrategy()`` if None.
        ejector: ``FifoEjectionStrategy()`` if None.
        device: where samples are delivered; None for where the columns are.
        adaptors: called on every sample after those of this table.
        **options: of :class:`ArrayMemoryTable`: ``name``, ``pad``, ``layout``, ...

    Raises:
        SpecError: an option or column that cannot be.
    """

    def __init__(
        self,
        *,
        use_terminal_column: bool,
        obs_keys: Sequence[str],
        columns: Iterable[Column],
        maxlen: int = 1_000_000,
        length_key: str = "actions",
        sampler: SampleStrategy | None = None,
        ejector: EjectionStrategy | None = None,
        device: torch.device | str | None = None,
        adaptors: Sequence[Adaptor] = (),
        **options: Any,
    ) -> None:
        columns = list(columns)
        own: list[Adaptor] = [DictObsAdaptor(obs_keys)]
        if use_terminal_column:
            columns.append(TagColumn("terminal", (), "float32"))
            own.append(TerminalAdaptor("masks", "terminal"))
        needed = [*obs_keys, *(f"next_{key}" for key in obs_keys)]
        if use_terminal_column:
            needed.append("masks")
        names = [column.name for column in columns]
        for name in needed:
            if name not in names:
                raise SpecError(
                    f"column '{name}' is missing from {', '.join(names)}; every sample of this "
                    "table is arranged with it, so declare it",
                    column=name,
                )
        super().__init__(
            *columns,
            maxlen=maxlen,
            sampler=sampler or UniformSampleStrategy(),
            ejector=ejector or FifoEjectionStrategy(),
            length_key=length_key,
            adaptors=[*own, *adaptors],
            device=device,
            **options,
        )


class DictObsMemoryTable(DictMemoryTable):
    """For learning from single steps: each transition with its next observation.

    Columns: "actions", "rewards", the observations and ``"next_" + key`` of each; "dones", true on
    the last transition of a sequence, and "masks", its complement, both of shape (1,).

    Args:
        spaces: what says which shapes and dtypes there are: an object with ``rewards`` (None for
            float32 of shape (1,)), ``actions`` and ``state.spaces``, a mapping of name to space,
            where a space has a ``shape`` and a ``dtype``; or a Gymnasium environment, single or
            vectorised. An observation space without names makes the column "obs".
        use_terminal_column: as for :class:`DictMemoryTable`.
        maxlen: most transitions.
        dones_dtype: of "dones".
        masks_dtype: of "masks".
        **options: of :class:`DictMemoryTable`: ``sampler``, ``ejector``, ``device``, ``name``, ...

    Raises:
        SpecError: spaces that a column cannot be made from, or an option that cannot be.
    """

    def __init__(
        self,
        *,
        spaces: Any,
        use_terminal_column: bool = False,
        maxlen: int = 1_000_000,
        dones_dtype: DTypeLike = bool,
        masks_dtype: DTypeLike = "float32",
        **options: Any,
    ) -> None:
        keys, columns = _columns(spaces, NextElementMapper(), dones_dtype, masks_dtype)
        super().__init__(
            use_terminal_column=use_terminal_column,
            obs_keys=keys,
            columns=columns,
            maxlen=maxlen,
            **options,
        )


class DictObsNStepMemoryTable(DictMemoryTable):
    """For learning from windows of n steps with a single bootstrap value at their end.

    As :class:`DictObsMemoryTable`, but ``"next_observation"`` has one row per window: what follows
    its last transition. The window is the n steps; for returns over n steps from every
    transition, see :class:`NStepReturn`.

    Args:
        spaces: as for :class:`DictObsMemoryTable`.
        use_terminal_column: as for :class:`DictMemoryTable`.
        maxlen: most transitions.
        **options: of :class:`DictMemoryTable`: ``sampler``, ``ejector``, ``device``, ``name``, ...

    Raises:
        SpecError: spaces that a column cannot be made from, or an option that cannot be.
    """

    def __init__(
        self,
        *,
        spaces: Any,
        use_terminal_column: bool = False,
        maxlen: int = 1_000_000,
        **options: Any,
    ) -> None:
        keys, columns = _columns(spaces, NextElementMapper.with_only_last(), bool, "float32")
        super().__init__(
            use_terminal_column=use_terminal_column,
            obs_keys=keys,
            columns=columns,
            maxlen=maxlen,
            **options,
        )


def _columns(
    spaces: Any, following: NextElementMapper, dones_dtype: Any, masks_dtype: Any
) -> tuple[list[str], list[Column]]:
    """The observations' names, and all columns."""
    actions, rewards, observations = _parts(spaces)
    columns = [
        _column("actions", actions),
        VirtualColumn("dones", (1,), dones_dtype, "actions", SyntheticDones()),
        VirtualColumn("masks", (1,), masks_dtype, "actions", SyntheticDones.as_mask()),
        Column("rewards", (1,), "float32") if rewards is None else _column("rewards", rewards),
    ]
    for key, space in observations.items():
        column = _column(key, space)
        columns += [
            column,
            VirtualColumn(f"next_{key}", column.shape, column.dtype, key, following),
        ]
    return list(observations), columns


def _parts(spaces: Any) -> tuple[Any, Any, Mapping[str, Any]]:
    """The spaces of actions, rewards (or None), and of each observation."""
    # Told by what they have, so that nothing needs to be installed or imported.
    for prefix in ("single_", ""):  # of a vectorised environment, one member's
        observation = getattr(spaces, f"{prefix}observation_space", None)
        actions = getattr(spaces, f"{prefix}action_space", None)
        if observation is not None and actions is not None:
            named = getattr(observation, "spaces", None)
            return (
                actions,
                None,
                named if isinstance(named, Mapping) else {_OBSERVATION: observation},
            )
    named = getattr(getattr(spaces, "state", None), "spaces", None)
    actions = getattr(spaces, "actions", None)
    if actions is None or not isinstance(named, Mapping):
        raise SpecError(
            f"spaces is {spaces!r:.100}; give an object with rewards, actions and state.spaces, a "
            "mapping of name to space, or a Gymnasium environment"
        )
    return actions, getattr(spaces, "rewards", None), named


def _column(name: str, space: Any) -> Column:
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if shape is None or dtype is None:
        raise SpecError(
            f"column '{name}': its space {space!r:.100} has no single shape and dtype; give spaces "
            "of one array each, or declare the columns yourself",
            column=name,
        )
    return Column(name, shape, dtype)
