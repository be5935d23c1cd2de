"""Several samplers in one, each for a fraction of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shmtable.errors import SpecError
from shmtable.index import IndexView
from shmtable.strategies.base import SampleStrategy, StateSpec, Strategy, make_strategy
from shmtable.strategies.trees import Float64Array
from shmtable.types import SamplePoints

_MOST = 1e9


class MixtureSampleStrategy(SampleStrategy):
    """Has each sample drawn by several samplers, for example 80 % prioritised and 20 % newest.

    The windows of the first come first, then those of the second, and so on. What a fraction
    leaves over of one window is settled by chance, so that the shares are right on average. Where
    one finds nothing to draw, the others take its share.

    ``.weights`` come from the members that have them, by the settings of the first; windows of the
    others weigh 1.

    Args:
        members: pairs of fraction and sampler, for example
            ``[(0.8, PrioritizedSampleStrategy()), (0.2, LifoSampleStrategy())]``; the fractions
            are taken in proportion to their sum.

    Raises:
        SpecError: no member, a fraction that is not above 0, a member that cannot be mixed.
    """

    def __init__(self, members: Sequence[tuple[float, SampleStrategy]]) -> None:
        self._members = [_checked(member) for member in members]
        if not self._members:
            raise SpecError("members is empty; give pairs of fraction and sampler")
        total = sum(fraction for fraction, _ in self._members)
        self._shares = np.array([fraction / total for fraction, _ in self._members])
        self.members = tuple(sampler for _, sampler in self._members)
        self.takes_priorities = any(sampler.takes_priorities for sampler in self.members)

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {
            "members": [
                [fraction, type(sampler).__name__, sampler.config()]
                for fraction, sampler in self._members
            ]
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], classes: Mapping[str, type[Strategy]]
    ) -> MixtureSampleStrategy:
        """See ``Strategy``."""
        inner = {name: known for name, known in classes.items() if not issubclass(known, cls)}
        members = []
        for member in config["members"]:
            if len(member) != 3:
                raise SpecError(f"member {member!r:.80} is not fraction, class name and settings")
            fraction, name, settings = member
            members.append((fraction, make_strategy(SampleStrategy, name, settings, inner)))
        return cls(members)

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
            own = state.get(str(number))  # a file's mixture may have been another one
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

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class."""
        wanted = np.floor(self._shares * count).astype(np.int64)
        wanted += random.multinomial(count - int(wanted.sum()), _fractions(self._shares * count))
        parts: list[SamplePoints] = []
        for member, number in zip(self.members, wanted.tolist(), strict=True):
            if number:
                parts.append(_drawn(member, number, sequence_length, random))
        for member in self.members:
            missing = count - sum(map(len, parts))
            if missing:
                parts.append(_drawn(member, missing, sequence_length, random))
        return SamplePoints.joined(parts)

    def weights(self, points: SamplePoints) -> Tensor | None:
        """See ``SampleStrategy``."""
        for member in self.members:
            found = member.weights(points)
            if found is not None:
                return found
        return None


def _checked(member: Any) -> tuple[float, SampleStrategy]:
    try:
        fraction, sampler = member
    except (TypeError, ValueError):
        fraction, sampler = None, None
    number: Any = fraction
    if not isinstance(fraction, Real) or not 0 < number <= _MOST:
        raise SpecError(
            f"member {member!r:.80} has no fraction above 0, up to {_MOST:g}; give "
            "(fraction, sampler)"
        )
    if not isinstance(sampler, SampleStrategy):
        raise SpecError(f"member {member!r:.80} has no sampler; give (fraction, sampler)")
    if isinstance(sampler, MixtureSampleStrategy):
        raise SpecError(f"member {member!r:.80} is a mixture itself; list its members instead")
    return float(number), sampler


def _fractions(expected: Float64Array) -> Float64Array:
    """Chances in proportion to what rounding down leaves over."""
    left: Float64Array = expected - np.floor(expected)
    total = left.sum()
    return left / total if total > 0 else np.full(len(left), 1 / len(left))


def _drawn(
    member: SampleStrategy, count: int, steps: int, random: np.random.Generator
) -> SamplePoints:
    """A member's share; chances only from those that make weights of them."""
    points = member.sample(count, steps, random)
    if points.chances is None or type(member).weights is SampleStrategy.weights:
        points.chances = np.full(len(points), np.nan)
    return points
