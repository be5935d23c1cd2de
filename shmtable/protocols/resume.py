"""What a restored table goes on with besides its rows: counts, strategies, random stream."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.errors import FileDamagedError
from shmtable.formats import Content
from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.protocols.fit import Fitting
from shmtable.shm.header import DIRTY
from shmtable.strategies import StateSpec, Strategy
from shmtable.types import Int64Array, rows_of


class Resuming:
    """Puts what the file says of its sequences into the slots that they were loaded into.

    Everything that can be refused is refused here, before a row is read.

    Raises:
        FileDamagedError: the random state is none.
    """

    def __init__(self, core: Core, content: Content, fitting: Fitting) -> None:
        self._core = core
        self._content = content
        self._first = fitting.first
        self._roles: dict[str, Strategy] = {"sampler": core.sampler, "ejector": core.ejector}
        self._same = {
            role: content.strategies[role].type == type(strategy).__name__
            for role, strategy in self._roles.items()
        }
        self._arrays = {
            (role, state.name): array
            for role, strategy in self._roles.items()
            if self._same[role]
            for state in strategy.states()
            if state.kept and (array := self._array(role, state, fitting.lengths)) is not None
        }
        self._random = _random_state(content)

    def publish_locked(self, slots: Int64Array) -> None:
        """Fill in the loaded slots; see ``load``."""
        core, content = self._core, self._content
        words, arrays = core.arena.words, core.arrays
        # The first store: whoever comes after an error in a strategy rebuilds what it left.
        words[DIRTY] = 1
        times = content.times_sampled
        arrays.times_sampled[slots] = 0 if times is None else times[self._first :]
        starts, lengths = arrays.slots[slots, f.START], arrays.slots[slots, f.LENGTH]
        for role, strategy in self._roles.items():
            strategy.begin_simple_import()
            if type(strategy).track is not Strategy.track:
                for slot, start, length in zip(
                    slots.tolist(), starts.tolist(), lengths.tolist(), strict=True
                ):
                    strategy.receive(slot, start, length, None)
                    strategy.track(slot, start, length)
            for state in strategy.states():
                found = self._arrays.get((role, state.name))
                if found is not None:
                    places = slots if state.per == "slot" else rows_of(starts, lengths)
                    strategy.arrays[state.name][places] = found
            if self._same[role] and content.strategies[role].state is not None:
                self._load_state(strategy, content.strategies[role].state)
            strategy.end_simple_import()
        if self._random is not None:
            core.random_locked().bit_generator.state = self._random

    def finish(self) -> None:
        """After publishing: tell those strategies that want to know."""
        for strategy in self._roles.values():
            if type(strategy).post_import is not Strategy.post_import:
                self._core.guard.run(self._post_import_locked, strategy)

    def _post_import_locked(self, strategy: Strategy) -> None:
        words = self._core.arena.words
        words[DIRTY] = 1  # cut off, it is followed by ``rebuild``
        strategy.post_import()
        words[DIRTY] = 0

    def _load_state(self, strategy: Strategy, state: Any) -> None:
        try:
            strategy.load_state(state)
        except Exception as error:
            raise FileDamagedError(
                f"{self._content.path}: {type(strategy).__name__} does not take the state kept "
                f"for it ({type(error).__name__}: {error}); restore an older file",
                path=self._content.path,
            ) from error

    def _array(self, role: str, state: StateSpec, lengths: Int64Array) -> npt.NDArray[Any] | None:
        """The file's items for one shared array, of the sequences that are taken."""
        found = self._content.strategies[role].arrays.get(state.name)
        if found is None:
            return None
        per_slot = state.per == "slot"
        wanted = (len(lengths) if per_slot else int(lengths.sum()),)
        if found.dtype != np.dtype(state.dtype) or found.shape != wanted:
            warnings.warn(
                f"{self._content.path}: the {role}'s {state.name} has dtype {found.dtype} and "
                f"shape {found.shape}, {state.dtype} and {wanted} are needed; it starts afresh",
                stacklevel=6,
            )
            return None
        return found[self._first if per_slot else int(lengths[: self._first].sum()) :]


def _random_state(content: Content) -> Any:
    """The generator's state as numpy takes it, tried out."""
    state = content.random
    if state is None:
        return None
    try:
        words = np.array(state["state"]["state"], np.uint64)
        found: Any = {**state, "state": {"state": words}}
        np.random.SFC64(0).state = found
        return found
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FileDamagedError(
            f"{content.path}: the random state kept in it is none ({error}); restore an older file",
            path=content.path,
        ) from None
