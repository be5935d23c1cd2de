"""One limiter over all shards, while adding stays local: what the keeper reckons.

A limiter with a ratio looks at d = inserted * ratio - sampled. Samples are few and come by the
keeper, which counts them. Adds are many and must not, so each shard is granted in advance how much
may be added to it, and its table holds adds back by itself (``Granted``). With g granted over all
and not used yet, the keeper sees to it that d + g never exceeds what the limiter allows. Whatever
is added where, d keeps below that bound, then. What has been granted to a shard where nobody adds
is taken back when another one needs it; the taking is one locked section of that shard's table, so
nothing is used and taken back as well.

The keeper's d is never above the true one, since all that is granted may be used by now: a sample
is only admitted if there is surely enough, and what is not known yet is known one round later. A
round takes some milliseconds, so the limiter's buffer must have room for what is added in one.

Both sides cannot wait for each other for ever as long as an add and a sample together fit into the
limiter's buffer, as with a single table: whatever is granted elsewhere is taken back for the add.
(Grants are whole numbers: up to one unit for each shard may be left over.)
Below the limiter's ``min_size`` adds are granted whatever they ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shmtable.errors import SpecError
from shmtable.limiters import Granted, Limiter, MinSize, SampleToInsertRatio, Standing
from shmtable.protocols.pace import Grant


def split_limiter(limiter: Limiter | None) -> Granted | None:
    """What each shard's table gets of a limiter over all of them.

    Raises:
        SpecError: it cannot be split.
    """
    if limiter is None or isinstance(limiter, MinSize):
        return None
    if isinstance(limiter, SampleToInsertRatio):
        return Granted(float(limiter.ratio), limiter.per)
    raise SpecError(
        f"limiter is {limiter!r:.80}; shards can be paced together by MinSize and "
        "SampleToInsertRatio"
    )


@dataclass
class Reckoning:
    """The counts of one limiter over all shards.

    Args:
        limiter: in force.

    Attributes:
        free: what may still be granted, in units of samples.
        grants: what each shard has said last, by its name.
    """

    limiter: Limiter
    free: float = 0.0
    begun: bool = False
    grants: dict[str, Grant] = field(default_factory=dict)

    def begin(self) -> None:
        """Count anew, with what the shards hold as the start; see ``hear``."""
        self.begun, self.free = False, 0.0
        self.grants.clear()

    def hear(self, told: Mapping[str, Grant]) -> None:
        """Take what shards have said; the first time it is what the counting begins with."""
        for name, grant in told.items():
            self.free -= grant.amount
            if self.begun and name not in self.grants:
                # From an earlier keeper, or with an answer that was dropped: used at any moment.
                self.free -= max(grant.unused - grant.amount, 0.0)
            self.grants[name] = grant
        if not self.begun and told:
            ahead = self.limiter.first_ahead(self.live, self.largest, 0)
            self.free = self._high - ahead - self.unused
            self.begun = True

    def forget(self, name: str) -> None:
        """A shard is lost: what it has not used, as far as is known, others may get."""
        grant = self.grants.pop(name, None)
        if grant is not None:
            self.free += grant.unused

    @property
    def live(self) -> int:
        """In all shards, in the limiter's unit."""
        return sum(grant.live for grant in self.grants.values())

    @property
    def unused(self) -> float:
        """Granted, and not used as far as is known."""
        return sum(max(grant.unused, 0.0) for grant in self.grants.values())

    @property
    def largest(self) -> int:
        """The largest add that was asked for in any shard."""
        return max((grant.largest for grant in self.grants.values()), default=0)

    @property
    def ahead(self) -> float:
        """inserted * ratio - sampled, or less."""
        return self._high - self.free - self.unused

    @property
    def _high(self) -> float:
        return self.limiter.high if isinstance(self.limiter, SampleToInsertRatio) else 0.0

    # -- samples ---------------------------------------------------------------------------

    def blocked(self, count: int, steps: int) -> str:
        """Why a sample must wait; empty when it need not.

        Raises:
            SpecError: it could make both sides wait for ever.
        """
        amount = self.limiter.sample_amount(count, steps)
        if message := self.limiter.impossible(self.largest, amount):
            raise SpecError(message)
        if not self.begun:
            return "the shards have not told yet what they hold; wait a moment"
        return self.limiter.sample_blocked(Standing(self.live, ahead=self.ahead), amount)

    def count(self, count: int, steps: int) -> None:
        """An admitted sample; with a negative count, one that came to nothing."""
        if self.limiter.rate:
            self.free += self.limiter.sample_amount(count, steps)

    # -- adds ------------------------------------------------------------------------------

    def plan(self) -> dict[str, int]:
        """How much each shard is granted next, or (below 0) what is taken back from it."""
        rate, names = self.limiter.rate, list(self.grants)
        if not rate or not self.begun or not names:
            return {}
        plan = dict.fromkeys(names, 0)
        left = self.free
        is_small = bool(self.limiter.sample_blocked(Standing(self.live, ahead=1e300), 0))
        if left < 0 and not is_small:  # more was out than was known: see ``hear``
            return {name: -int(max(grant.unused, 0.0)) for name, grant in self.grants.items()}
        wanting = {
            name: grant.waiting * rate - grant.unused
            for name, grant in self.grants.items()
            if grant.waiting * rate > grant.unused
        }
        for name, wanted in sorted(wanting.items(), key=lambda item: item[1]):
            amount = int(wanted) + 1
            if amount > left and not is_small:
                # What the others do not use is taken back first, and granted in the next round:
                # then this one still wants the least, so nobody takes it back in turn.
                for other, grant in self.grants.items():
                    if other != name and not plan[other]:
                        plan[other] = -int(max(grant.unused, 0.0))
                return plan
            plan[name] += amount
            left -= amount
        share = int(left / len(names))
        return {name: amount + max(share, 0) for name, amount in plan.items()}
