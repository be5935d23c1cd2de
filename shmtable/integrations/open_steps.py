"""The newest steps of environments that step together, until they are whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.types import BoolArray, Int64Array

Array = npt.NDArray[Any]


class OpenSteps:
    """Steps of N environments that are in no sequence yet, and sequences made of them.

    A sequence has observations, as many as steps and n more, "actions", "rewards" and "dones".
    With n above 1, its rewards are those of n steps, float32 [steps, n], its dones are those of the
    last of these, and it has "discounts" for them, float32 [steps]. After the end of an episode the
    last observation stands again, rewards are 0, and the discount is that of the steps there were.

    Args:
        environments: N.
        observed: shape and dtype of each column of observations.
        actions: shape and dtype of an action.
        longest: steps of a sequence, where the episode goes on.
        n_steps: over which rewards are summed (n); so many less one stay open behind a sequence.
        gamma: discount of a step.

    Attributes:
        lengths: int64 [N], steps that are open.
        most: of them at most.
    """

    # Of environment i, rows [i, :lengths[i]] are steps; row lengths[i] of an observation is what
    # followed the last one. Behind that there is room for what ``sequence`` repeats.

    def __init__(
        self,
        environments: int,
        observed: Mapping[str, tuple[tuple[int, ...], Any]],
        actions: tuple[tuple[int, ...], Any],
        longest: int,
        n_steps: int,
        gamma: float,
    ) -> None:
        self.most = longest + n_steps - 1
        self.lengths: Int64Array = np.zeros(environments, np.int64)
        self._n_steps = n_steps
        self._powers = np.float32(gamma) ** np.arange(n_steps + 1, dtype=np.float32)
        self._observed = tuple(observed)
        steps: dict[str, tuple[tuple[int, ...], Any]] = {
            "actions": actions,
            "rewards": ((), np.float32),
            "dones": ((), np.float32),
        }
        room = self.most + n_steps
        self._rows = {
            name: np.zeros((environments, room, *shape), dtype)
            for name, (shape, dtype) in {**observed, **steps}.items()
        }
        self._all = np.arange(environments)

    def interrupted(self, now: Mapping[str, Array]) -> BoolArray:
        """Of which environments the open steps do not lead to these observations: bool [N]."""
        differ = self.lengths >= self.most  # what could not be written when it was time
        for name, rows in now.items():
            last = self._rows[name][self._all, self.lengths]
            differ |= (last != rows).reshape(len(rows), -1).any(1)
        return differ & (self.lengths > 0)

    def append(self, now: Mapping[str, Array], later: Mapping[str, Array], **step: Array) -> None:
        """One step more of every environment.

        Args:
            now: observations before the step, [N, *shape] of each column.
            later: observations after it.
            **step: "actions", "rewards" and "dones", [N, *shape].
        """
        at = self.lengths
        for name, rows in now.items():
            self._rows[name][self._all, at] = rows
            self._rows[name][self._all, at + 1] = later[name]
        for name, values in step.items():
            self._rows[name][self._all, at] = values
        self.lengths += 1

    def whole(self, environment: int, ended: bool) -> int:
        """How many steps can be a sequence: all at the end, else those whose n steps are known."""
        length = int(self.lengths[environment])
        return length if ended else length - self._n_steps + 1

    def full(self) -> BoolArray:
        """Of which environments there are as many steps as may be: bool [N]."""
        return self.lengths >= self.most

    def sequence(self, environment: int, steps: int) -> dict[str, Array]:
        """The first ``steps`` steps of an environment; views where possible."""
        length = int(self.lengths[environment])
        made = self._stepwise(np.full(steps, environment), np.arange(steps))
        made["actions"] = self._rows["actions"][environment, :steps]
        for name in self._observed:
            rows = self._rows[name][environment]
            if steps + self._n_steps > length + 1:
                rows[length + 1 : steps + self._n_steps] = rows[length]
            made[name] = rows[: steps + self._n_steps]
        return made

    def take(self, numbers: Int64Array) -> dict[str, Array]:
        """Some of all open steps, as a table gives them: copies, with "next_" observations.

        Args:
            numbers: int64 [B]; the steps count on from one environment to the next.
        """
        ends = self.lengths.cumsum()
        places = ends.searchsorted(numbers, side="right")
        steps = numbers - (ends - self.lengths)[places]
        following = np.minimum(steps + self._n_steps, self.lengths[places])
        taken = self._stepwise(places, steps)
        taken["actions"] = self._rows["actions"][places, steps]
        for name in self._observed:
            taken[name] = self._rows[name][places, steps]
            taken[f"next_{name}"] = self._rows[name][places, following]
        return taken

    def _stepwise(self, places: Int64Array, steps: Int64Array) -> dict[str, Array]:
        rewards, dones = self._rows["rewards"], self._rows["dones"]
        if self._n_steps == 1:
            return {"rewards": rewards[places, steps], "dones": dones[places, steps]}
        lengths = self.lengths[places]
        ahead = steps[:, None] + np.arange(self._n_steps)
        there = ahead < lengths[:, None]
        reach = there.sum(1)
        return {
            "rewards": rewards[places[:, None], ahead] * there,
            "dones": dones[places, steps + reach - 1],
            "discounts": self._powers[reach],
        }

    def give(self, environment: int, steps: int, add: Callable[[dict[str, Array]], object]) -> None:
        """Have the first ``steps`` steps of an environment added, and take them out.

        Where ``add`` raises an error, they stay. After an interrupt they are added or lost, and
        with them what is open behind, but never added and still open.
        """
        length = int(self.lengths[environment])
        sequence = self.sequence(environment, steps)
        self.lengths[environment] = 0
        try:
            add(sequence)
        except Exception:
            self.lengths[environment] = length
            raise
        for rows in self._rows.values():
            rows[environment, : length + 1 - steps] = rows[environment, steps : length + 1].copy()
        self.lengths[environment] = length - steps

    def clear(self) -> None:
        """Take all out."""
        self.lengths[:] = 0
