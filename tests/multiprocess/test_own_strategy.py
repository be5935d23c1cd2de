"""A strategy of one's own that remembers, in several processes and through every way in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shmtable import ArrayMemoryTable, NoWindowError, SamplePoints, SampleStrategy, StateSpec
from tests.multiprocess import content
from tests.multiprocess.recipe import METHODS, Crew, link


class Fresh(SampleStrategy):
    """Uniform over the windows that recent versions of a policy have collected."""

    def __init__(self, most_behind: int = 1) -> None:
        self.most_behind = most_behind

    def config(self) -> dict[str, int]:
        return {"most_behind": self.most_behind}

    def states(self) -> tuple[StateSpec, ...]:
        return StateSpec("version", "table", "int64"), StateSpec("collected_by", "slot", "int64")

    @property
    def version(self) -> int:
        return int(self.arrays["version"][0])

    @version.setter
    def version(self, number: int) -> None:
        self.arrays["version"][0] = number

    def track(self, slot: int, start: int, length: int) -> None:
        self.arrays["collected_by"][slot] = self.version

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        slots = self.view.live_slots()
        slots = slots[self.arrays["collected_by"][slots] >= self.version - self.most_behind]
        ends = np.cumsum(self.view.window_counts(slots, sequence_length))
        if not len(ends) or ends[-1] == 0:
            return self.view.points(slots[:0], slots[:0])
        windows = random.integers(0, ends[-1], count)
        places = np.searchsorted(ends, windows, side="right")
        return self.view.points(slots[places], ends[places] - 1 - windows)


def collect(table: ArrayMemoryTable | str, first: int, count: int) -> list[int]:
    """Adds sequences when told the version, and says what it sees of others' then."""
    if isinstance(table, str):
        table = ArrayMemoryTable.attach(table, classes=[Fresh])
    sampler = table.sampler
    assert isinstance(sampler, Fresh)
    link().tell("here")
    assert link().hear() == sampler.version
    for identity in range(first, first + count):
        table.add_sequence(identity, content.sequence(identity, 6))
    link().tell("added")
    link().hear()
    seen = set(table.sample(200, 2).points.identities.tolist())
    table.close()
    return sorted(seen)


@pytest.mark.parametrize("method", [*METHODS, "attach"])
def test_what_it_remembers_is_the_same_everywhere(
    make_table: Callable[..., ArrayMemoryTable], unique_name: Callable[[], str], method: str
) -> None:
    name = unique_name()
    table = make_table(columns=content.columns(), sampler=Fresh(), name=name, seed=1)
    for identity in range(5):
        table.add_sequence(identity, content.sequence(identity, 6))
    sampler = table.sampler
    assert isinstance(sampler, Fresh)
    with Crew("spawn" if method == "attach" else method) as crew:
        member = crew.add(collect, name if method == "attach" else table, 100, 5)
        crew.go()
        assert member.hear() == "here"
        sampler.version = 1
        member.tell(1)
        assert member.hear() == "added"
        assert set(table.sample(200, 2).points.identities.tolist()) == {*range(5), *range(100, 105)}
        sampler.version = 2  # those of version 0 are too old from here on
        assert set(table.sample(200, 2).points.identities.tolist()) == set(range(100, 105))
        member.tell("look")
        assert crew.results() == [list(range(100, 105))]
    sampler.version = 9
    with pytest.raises(NoWindowError):
        table.sample(1, 1)
