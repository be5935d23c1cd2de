"""What episodes came to, for every process that wants to know: a small table of its own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import Column
from shmtable.errors import UnknownIdentityError
from shmtable.presets import uniform_replay
from shmtable.types import Int64Array
from shmtable.writer import Writer

_KEPT = 100  # episodes, as many as Gymnasium's and Stable-Baselines3's statistics are about


class FinishedEpisodes:
    """Returns and lengths of the last 100 episodes that ended; the oldest go first.

    The same in all processes that got it as an argument, whichever of them notes an episode and
    however that process ends.
    """

    def __init__(self) -> None:
        columns = [Column("returns", (), "float64"), Column("lengths", (), "int64")]
        self._table = uniform_replay(columns, _KEPT, length_key="lengths")
        self._writer: Writer | None = None  # of this process, once it has noted something

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Sums of rewards, float64 [E], the newest last; E is at most 100."""
        return np.array(self._newest("returns"), np.float64)

    @property
    def lengths(self) -> Int64Array:
        """Steps, int64 [E], the newest last; E is at most 100."""
        return np.array(self._newest("lengths"), np.int64)

    def __len__(self) -> int:
        """Episodes that have ended so far, those forgotten included."""
        return self._table.stats().sequences_added

    def note(self, total: float, length: int) -> None:
        """Add an episode that has just ended: its return and its length."""
        if self._writer is None:
            self._writer = self._table.writer()
        self._writer.append(returns=total, lengths=length)
        self._writer.end()

    def close(self) -> None:
        """Let go of it in this process; safe to call twice."""
        self._table.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self._table,)

    def _newest(self, column: str) -> list[float]:
        found = []
        for identity in self._table.identities().tolist():
            with suppress(UnknownIdentityError):  # it was forgotten in between
                found.append(self._table.sequence(identity)[column].item())
        return found


def _received(table: Any) -> FinishedEpisodes:
    episodes = FinishedEpisodes.__new__(FinishedEpisodes)
    episodes._table, episodes._writer = table, None
    return episodes
