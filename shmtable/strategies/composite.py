"""Samplers that are made of others, and leave to them whatever is not their own business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shmtable.errors import SpecError
from shmtable.index import IndexView
from shmtable.strategies.base import SampleStrategy, StateSpec, Strategy, make_strategy
from shmtable.strategies.priorities import within
from shmtable.strategies.trees import Float64Array
from shmtable.types import Int64Array, SamplePoints


class CompositeSampleStrategy(SampleStrategy):
    """Passes on everything but ``sample`` to its members.

    Attributes:
        members: the samplers it is made of; their arrays are its own, under numbers.

    Raises:
        SpecError: a member that cannot be one.
    """

    def __init__(self, *members: SampleStrategy) -> None:
        for member in members:
            if not isinstance(member, SampleStrategy):
                raise SpecError(f"member {member!r:.80} is no sampler; give a SampleStrategy")
            if isinstance(member, CompositeSampleStrategy):
                raise SpecError(
                    f"member {type(member).__name__} is made of samplers itself; use its members"
                )
        self.members = members
        self.takes_priorities = any(member.takes_priorities for member in members)

    @classmethod
    def made_member(
        cls, name: Any, config: Mapping[str, Any], classes: Mapping[str, type[Strategy]]
    ) -> Any:
        """A member as a header describes it; see ``make_strategy``."""
        simple = {
            known: made
            for known, made in classes.items()
            if not issubclass(made, CompositeSampleStrategy)
        }
        return make_strategy(SampleStrategy, name, config, simple)

    def parts(self) -> tuple[Strategy, ...]:
        """See ``Strategy``."""
        return self.members

    def states(self) -> tuple[StateSpec, ...]:
        """See ``Strategy``."""
        return tuple(
            StateSpec(f"{number}.{s.name}", s.per, s.dtype, s.every, s.derived)
            for number, member in enumerate(self.members)
            for s in member.states()
        )

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See ``Strategy``."""
        super().bind(view, arrays)
        for number, member in enumerate(self.members):
            own = {state.name: arrays[f"{number}.{state.name}"] for state in member.states()}
            member.bind(view, own)

    def initialise(self) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.initialise()

    def receive(self, slot: int, start: int, length: int, priority: Any) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.receive(slot, start, length, priority)

    def track(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.track(slot, start, length)

    def forget(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.forget(slot, start, length)

    def rebuild(self) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.rebuild()

    def update_priorities(self, points: SamplePoints, priorities: Float64Array) -> None:
        """See ``Strategy``."""
        for member in self.members:
            if member.takes_priorities:
                member.update_priorities(points, priorities)

    def on_sample(self, points: SamplePoints, sequence_length: int) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.on_sample(points, sequence_length)

    def state(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {str(number): member.state() for number, member in enumerate(self.members)}

    def load_state(self, state: dict[str, Any]) -> None:
        """See ``Strategy``."""
        for number, member in enumerate(self.members):
            own = state.get(str(number))  # a file's may have had other members
            if own is not None:
                member.load_state(own)

    def begin_simple_import(self) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.begin_simple_import()

    def end_simple_import(self) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.end_simple_import()

    def post_import(self) -> None:
        """See ``Strategy``."""
        for member in self.members:
            member.post_import()

    def weights(self, points: SamplePoints) -> Tensor | None:
        """See ``SampleStrategy``."""
        for member in self.members:
            found = member.weights(points)
            if found is not None:
                return found
        return None


class EndAlignedSampleStrategy(CompositeSampleStrategy):
    """Moves some of another sampler's windows to the end of their sequence.

    The last transitions of a sequence, the reward at the goal among them, are in fewer windows
    than those in its middle; this makes up for it.

    Args:
        member: what draws the windows.
        probability: how likely each of them is to be moved, 0 to 1. One that is weighs 1.

    Raises:
        SpecError: a setting that cannot be.
    """

    def __init__(self, member: SampleStrategy, probability: float) -> None:
        super().__init__(member)
        self._probability = within("probability", probability, 1.0)

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        (member,) = self.members
        return {
            "member": [type(member).__name__, member.config()],
            "probability": self._probability,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], classes: Mapping[str, type[Strategy]]
    ) -> EndAlignedSampleStrategy:
        """See ``Strategy``."""
        name, settings = (*config["member"], None, None)[:2]
        return cls(cls.made_member(name, settings, classes), config["probability"])

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class."""
        points = self.members[0].sample(count, sequence_length, random)
        moved = (random.random(len(points)) < self._probability).nonzero()[0]
        if len(moved):
            shift: Int64Array = points.lengths[moved] - sequence_length - points.offsets[moved]
            np.maximum(shift, 0, out=shift)  # a padded window begins where its sequence does
            points.offsets[moved] += shift
            points.starts[moved] += shift
            if points.chances is not None:
                points.chances[moved] = np.nan
        return points
