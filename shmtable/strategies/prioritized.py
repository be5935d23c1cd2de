"""By priority: what surprised the learner most is drawn most."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from shmtable.errors import SpecError
from shmtable.strategies.base import StateSpec
from shmtable.strategies.priorities import (
    MOST_PRIORITY,
    believed,
    importance_weights,
    mixed,
    one_of,
    within,
)
from shmtable.strategies.trees import Float64Array, MinTree, tree_states
from shmtable.strategies.weighted import WeightedSampleStrategy
from shmtable.types import SamplePoints

_MOST_ALPHA = 4.0
_PER = ("transition", "sequence")
_NORMALIZE = ("batch", "table")


class PrioritizedSampleStrategy(WeightedSampleStrategy):
    """Draws windows with chances in proportion to ``(priority + epsilon) ** alpha``.

    Prioritized experience replay (Schaul et al. 2016, proportional variant). A window has the
    priority of its first transition, or, with ``per="sequence"``, that of its sequence, shared
    evenly among the windows the sequence offers (Kapturowski et al. 2019, R2D2). Draws are
    stratified and with replacement, in random order.

    Samples carry ``.weights``, the importance weights ``(1 / chance) ** beta`` divided by the
    greatest of the batch, or of all transitions in the table. ``table.update_priorities`` gives new
    priorities. A new sequence has the highest priority seen so far (1 at first), or the one given
    to ``add_sequence``.

    O(count * log(transitions)); an update and an add likewise.

    Args:
        alpha: how much priorities count, 0 (uniform) to 4.
        beta: how much the weights correct for it, 0 (not at all) to 1 (fully). Raise it while
            running with ``table.sampler.beta = ...``; ``alpha`` likewise, but then the next
            sample takes O(transitions).
        per: what has a priority, a "transition" or a "sequence".
        eta: with ``per="sequence"``, of priorities given per transition the sequence's is
            ``eta * max + (1 - eta) * mean``.
        epsilon: added to every priority, so that one of 0 is drawn now and then (0: never).
        normalize: the weights' greatest is 1 in each "batch", or over the whole "table".

    Raises:
        SpecError: a setting that cannot be.
    """

    takes_priorities = True

    def __init__(
        self,
        alpha: float = 0.6,
        beta: float = 0.4,
        per: str = "transition",
        eta: float = 0.9,
        epsilon: float = 1e-6,
        normalize: str = "batch",
    ) -> None:
        self._config = {
            "alpha": within("alpha", alpha, _MOST_ALPHA),
            "beta": within("beta", beta, 1.0),
            "per": one_of("per", per, _PER),
            "eta": within("eta", eta, 1.0),
            "epsilon": within("epsilon", epsilon, 1.0),
            "normalize": one_of("normalize", normalize, _NORMALIZE),
        }
        if per == "sequence" and normalize == "table":
            raise SpecError(
                'normalize is "table", which needs per="transition": how many windows share a '
                'sequence\'s priority depends on their length; give normalize="batch"'
            )
        super().__init__("slot" if per == "sequence" else "row")
        self._eta, self._epsilon = float(eta), float(epsilon)

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return dict(self._config)

    def states(self) -> tuple[StateSpec, ...]:
        """See ``Strategy``."""
        per = "slot" if self._per_slot else "row"
        # ``priority`` is the truth; the trees' leaves are derived from it.
        # ``leaf_alpha`` is the alpha they were made with, NaN while they are being made.
        single = ("alpha", "beta", "highest", "leaf_alpha")
        least = tree_states("least", per)[1:] if self._config["normalize"] == "table" else ()
        return (
            StateSpec("priority", per, "float64"),
            *(StateSpec(name, "table", "float64") for name in single),
            *super().states(),
            *least,
        )

    def bind(self, view: Any, arrays: Any) -> None:
        """See ``Strategy``."""
        super().bind(view, arrays)
        self._priority: Float64Array = arrays["priority"]
        self._least: MinTree | None = None
        if self._config["normalize"] == "table":
            self._least = MinTree({**arrays, "least": self._tree.leaves}, "least")

    def initialise(self) -> None:
        """See ``Strategy``."""
        self.arrays["alpha"][0] = self.arrays["leaf_alpha"][0] = self._config["alpha"]
        self.arrays["beta"][0] = self._config["beta"]
        self.arrays["highest"][0] = 1.0

    # -- settings, each one aligned store, seen by every process ---------------------------------

    @property
    def alpha(self) -> float:
        """How much priorities count; set it in any process, and it holds for all."""
        return float(self.arrays["alpha"][0])

    @alpha.setter
    def alpha(self, value: float) -> None:
        self.arrays["alpha"][0] = within("alpha", value, _MOST_ALPHA)

    @property
    def beta(self) -> float:
        """How much the weights correct; set it in any process, and it holds for all."""
        return float(self.arrays["beta"][0])

    @beta.setter
    def beta(self, value: float) -> None:
        self.arrays["beta"][0] = within("beta", value, 1.0)

    def state(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {"highest": self.highest}

    def load_state(self, state: dict[str, Any]) -> None:
        """See ``Strategy``."""
        self._raise_highest(within("highest", state["highest"], MOST_PRIORITY))

    @property
    def highest(self) -> float:
        """The highest priority seen, which new sequences get."""
        return float(self.arrays["highest"][0])

    # -- sequences come and go -------------------------------------------------------------------

    def receive(self, slot: int, start: int, length: int, priority: Any) -> None:
        """See ``Strategy``."""
        given = math.nan if priority is None else priority
        if self._per_slot:
            if isinstance(given, np.ndarray):
                given = mixed(given[None], self._eta)[0]
            self._priority[slot] = given
        else:
            self._priority[start : start + length] = given

    def track(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        first, last = self._extent(slot, start, length)
        priorities = self._priority[first:last]
        if math.isnan(priorities[0]):
            priorities[:] = self.highest
            self._tree.fill(first, last, self._leaf(self.highest))
        else:
            self._raise_highest(float(priorities.max()))
            self._tree.fill(first, last, self._leaf(priorities))
        if self._least is not None:
            self._least.fill(first, last, self._tree.leaves[first:last])

    def forget(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        first, last = self._extent(slot, start, length)
        self._tree.fill(first, last, 0.0)
        if self._least is not None:
            self._least.fill(first, last, 0.0)

    def rebuild(self) -> None:
        """See ``Strategy``."""
        alpha = self.alpha
        self.arrays["leaf_alpha"][0] = math.nan
        places = self.view.live_slots() if self._per_slot else self.view.live_rows()
        priorities = believed(self._priority, places, self.highest)
        size = self._rebuild_tree(places, self._leaf(priorities, alpha))
        if self._least is not None:
            self._least.rebuild(size)
        self.arrays["leaf_alpha"][0] = alpha

    def update_priorities(self, points: SamplePoints, priorities: Float64Array) -> None:
        """See ``Strategy``."""
        self._raise_highest(float(np.fmax.reduce(priorities, axis=None)))
        if self._per_slot:
            places, values = points.slots, mixed(priorities, self._eta)
        elif priorities.shape[1] == 1:
            places, values = points.starts, priorities[:, 0]
        else:
            places = (points.starts[:, None] + np.arange(priorities.shape[1])).reshape(-1)
            values = priorities.reshape(-1)
            inside = ~np.isnan(values)
            places, values = places[inside], values[inside]
        self._priority[places] = values
        # Read back: where a place occurs twice, all its leaves must be those of one value.
        leaves = self._leaf(self._priority[places])
        self._tree.put(places, leaves)
        if self._least is not None:
            self._least.put(places, leaves)

    # -- drawing ---------------------------------------------------------------------------------

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class."""
        if self.arrays["leaf_alpha"][0] != self.alpha:
            self.rebuild()
        points = super().sample(count, sequence_length, random)
        if self._least is not None and points.chances is not None and len(points):
            # In units of the table's least: ``weights`` comes without the lock, too late to ask.
            size = self._size()
            points.chances *= self._tree.total(size) / self._least.least(size)
        return points

    def weights(self, points: SamplePoints) -> Tensor | None:
        """See ``SampleStrategy``."""
        least = math.inf if self._least is None else 1.0
        return importance_weights(points, self.beta, least)

    # -- small parts -----------------------------------------------------------------------------

    def _leaf(self, priority: Any, alpha: float | None = None) -> Any:
        if alpha is None:
            alpha = float(self.arrays["leaf_alpha"][0])
        return (priority + self._epsilon) ** alpha

    def _raise_highest(self, priority: float) -> None:
        if priority > self.highest:
            self.arrays["highest"][0] = priority
