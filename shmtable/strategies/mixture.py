"""Several samplers in one, each for a fraction of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from shmtable.errors import SpecError
from shmtable.strategies.base import SampleStrategy, Strategy
from shmtable.strategies.composite import CompositeSampleStrategy
from shmtable.strategies.trees import Float64Array
from shmtable.types import SamplePoints

_MOST = 1e9


class MixtureSampleStrategy(CompositeSampleStrategy):
    """Has each sample drawn by several samplers, for example 80 % prioritised and 20 % newest.

    The windows of the first come first, then those of the second, and so on. What a fraction
    leaves over of one window is settled by chance, so that the shares are right on average. Where
    one finds nothing to draw, the others take its share.

    ``.weights`` come from the members that have them; windows of the others weigh 1. All weights of
    a sample are relative to its greatest, which means something only where all correct equally: so
    those members must agree in ``beta`` and ``normalize``. Raise ``beta`` while running with
    ``table.sampler.beta = ...``, which sets it for all of them.

    Args:
        members: pairs of fraction and sampler, for example
            ``[(0.8, PrioritizedSampleStrategy()), (0.2, LifoSampleStrategy())]``; the fractions
            are taken in proportion to their sum.

    Raises:
        SpecError: no member, a fraction that is not above 0, a member that cannot be mixed, or
            members that correct differently.
    """

    def __init__(self, members: Sequence[tuple[float, SampleStrategy]]) -> None:
        self._members = [_checked(member) for member in members]
        if not self._members:
            raise SpecError("members is empty; give pairs of fraction and sampler")
        total = sum(fraction for fraction, _ in self._members)
        self._shares = np.array([fraction / total for fraction, _ in self._members])
        super().__init__(*(sampler for _, sampler in self._members))
        for setting in ("beta", "normalize"):
            _agree(setting, [member.config() for member in self._correcting()])

    def _correcting(self) -> list[Any]:
        return [
            member
            for member in self.members
            if type(member).weights is not SampleStrategy.weights and "beta" in member.config()
        ]

    @property
    def beta(self) -> float:
        """How much the weights correct, in all members that have any; 0 where none has.

        Set it in any process, and it holds for all.
        """
        found = [member.beta for member in self._correcting()]
        return float(found[0]) if found else 0.0

    @beta.setter
    def beta(self, value: float) -> None:
        members = self._correcting()
        if not members:
            raise SpecError(
                f"beta is {value!r:.80}, and no member makes weights; mix a prioritised sampler in"
            )
        for member in members:
            member.beta = value

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
        members = []
        for member in config["members"]:
            if len(member) != 3:
                raise SpecError(f"member {member!r:.80} is not fraction, class name and settings")
            fraction, name, settings = member
            members.append((fraction, cls.made_member(name, settings, classes)))
        return cls(members)

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
    return float(number), sampler


def _agree(setting: str, configs: list[dict[str, Any]]) -> None:
    given = list(dict.fromkeys(config[setting] for config in configs if setting in config))
    if len(given) > 1:
        raise SpecError(
            f"{setting} is {' and '.join(map(repr, given))} in members of one mixture: their "
            f"windows' weights are relative to each other; give all the same {setting}"
        )


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
