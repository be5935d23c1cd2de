"""What a strategy derives must be what ``rebuild`` makes of the truth, whatever led there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable import ArrayMemoryTable
from shmtable.index import fields as f
from shmtable.protocols import Core
from shmtable.strategies import StateSpec
from shmtable.types import rows_of

# Sums of a block may be added up in another order than those of many blocks at once.
RELATIVE = 1e-12


def wrong_with_derived(table: ArrayMemoryTable) -> list[str]:
    """Which derived arrays of the strategies are out of date; empty when all are right."""
    core = table._core
    return core.guard.run(_compare_locked, core)


def _compare_locked(core: Core) -> list[str]:
    found = []
    for role, strategy in {"sampler": core.sampler, "ejector": core.ejector}.items():
        # A setting changed, or a call cut off: whoever samples next makes the leaves anew.
        if core.view.live_count and role == "sampler":
            for sampler in core.sampler.parts() or (core.sampler,):
                sampler.sample(1, 1, np.random.default_rng(0))  # type: ignore[attr-defined]
        states = {state.name: state for state in strategy.states() if state.derived}
        before = {name: _used(core, state, strategy.arrays) for name, state in states.items()}
        strategy.rebuild()
        for name, state in states.items():
            now = _used(core, state, strategy.arrays)
            if not np.allclose(before[name], now, rtol=RELATIVE, atol=0, equal_nan=False):
                places = np.flatnonzero(before[name] != now)[:5]
                found.append(
                    f"{role} {name} at {places}: {before[name][places]} instead of {now[places]}"
                )
            if f"{name}/16" in states:
                dead = np.ones(len(now), np.bool_)
                dead[_live(core, state.per)] = False
                if now[dead].any() or (now[~dead] < 0).any():
                    found.append(f"{role} {name} has leaves for what is not live")
    return found


def _used(core: Core, state: StateSpec, arrays: Any) -> npt.NDArray[Any]:
    words = core.arena.words
    count = words[f.RESERVED_SLOTS] if state.per == "slot" else words[f.RESERVED_ROWS]
    return arrays[state.name][: -(-count // state.every)].copy()


def _live(core: Core, per: str) -> npt.NDArray[np.int64]:
    slots = core.arrays.in_state(f.LIVE)
    if per == "slot":
        return slots
    return rows_of(core.arrays.slots[slots, f.START], core.arrays.slots[slots, f.LENGTH])
