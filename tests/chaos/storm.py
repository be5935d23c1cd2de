"""Kills workers at random while the others go on, and looks after what the dead leave behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from shmtable import ArrayMemoryTable, UnknownIdentityError
from shmtable.shm.header import DIRTY, TABLE_NOTE_PID
from tests.chaos.meter import KINDS, Meter, Records, Word
from tests.chaos.worker import BLOCK, KEPT, THREADS, WIDTH, Tables, Worker, length_of, work
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, Member

PAUSE_S = 0.02  # between kills, at most; starting the next worker takes as long again
AIM_S = 0.01  # how long to look for somebody to kill in the middle of a section
HANGS_S = 20.0  # one call, blocked or not


@dataclass
class Tally:
    """What a storm has seen.

    Attributes:
        kills: workers killed.
        recoveries: times that something half done was found and repaired.
        windows: sampled windows that were verified.
        acknowledged: sequences whose add into the vault was acknowledged.
        kept: of those the ones that a killed worker left behind; each was there, and whole.
        longest_ns, longest_kind: the longest stall of a survivor, and the call it happened in.
    """

    kills: int = 0
    recoveries: int = 0
    windows: int = 0
    calls: int = 0
    acknowledged: int = 0
    kept: int = 0
    seconds: float = 0.0
    longest_ns: int = 0
    longest_kind: str = "none"

    def take(self, record: memoryview) -> None:
        """Add what a worker has done, and clear its record for the next one."""
        self.windows += record[Word.WINDOWS]
        self.calls += record[Word.CALLS]
        self.acknowledged += record[Word.ADDED]
        if record[Word.LONGEST_NS] > self.longest_ns:
            self.longest_ns = record[Word.LONGEST_NS]
            self.longest_kind = KINDS[record[Word.LONGEST_KIND]]
        for word in Word:
            record[word] = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills survived, {self.recoveries} recoveries, "
            f"{self.windows} windows verified, {self.acknowledged} sequences acknowledged and "
            f"0 lost ({self.kept} left by the dead), {self.calls} calls, longest stall "
            f"{self.longest_ns / 1e6:.1f} ms ({self.longest_kind}), {self.seconds:.1f} s"
        )


@dataclass
class Storm:
    """One table of each sort, workers on them, and the one who kills and survives.

    Attributes:
        lock: of the tables.
        processes: workers, at least 2.
        seed: of who is killed when, and of what each worker does; not of what the system makes
            of it.
    """

    lock: str
    processes: int
    seed: int
    tally: Tally = field(default_factory=Tally)

    def rage(self, seconds: float, tell: Callable[[str], None] | None = None) -> Tally:
        """Let it happen for so long.

        Args:
            seconds: how long to go on killing.
            tell: called every few seconds with a line of progress.

        Raises:
            AssertionError: something was lost, torn or invented, or somebody hangs.
        """
        self._random = np.random.default_rng(self.seed)
        self._tables = Tables.make(self.lock, self.processes, self.seed)
        self._records = Records(THREADS * self.processes + 1)
        self._meter = Meter(self._records.words[-1])
        self._bases: list[int] = []
        self._next_base = BLOCK
        began = time.monotonic()
        told = began
        try:
            with Crew("fork") as crew:
                members = [self._start(crew, number) for number in range(self.processes)]
                while (now := time.monotonic()) < began + seconds:
                    self._kill_some(crew, members)
                    self._look_after(members)
                    self.tally.seconds = now - began
                    if tell is not None and now > told + 5:
                        told = now
                        tell(f"{self.lock}: {self.tally}")
                self._end(crew, members)
            self.tally.seconds = time.monotonic() - began
        finally:
            self._tables.close()
        return self.tally

    def _start(self, crew: Crew, number: int) -> Member:
        base, self._next_base = self._next_base, self._next_base + BLOCK
        if number == len(self._bases):
            self._bases.append(base)
        self._bases[number] = base
        return crew.start(work, self._tables, self._records, number, base, self.seed)

    def _kill_some(self, crew: Crew, members: list[Member]) -> None:
        """Usually one, half of the time in the middle of something; now and then all but one."""
        time.sleep(self._random.uniform(0, PAUSE_S))  # sets the pace; nothing depends on it
        many = self._random.random() < 0.2
        count = int(self._random.integers(1, self.processes)) if many else 1
        chosen = self._random.permutation(self.processes)[:count].tolist()
        if self._random.random() < 0.5:
            chosen = self._busy(members) or chosen
        for number in chosen:
            members[number].look()
            members[number].kill()
        for number in chosen:
            members[number].join()
            crew.dismiss(members[number])
        self.tally.kills += len(chosen)
        for number in chosen:
            self._settle(number)
            members[number] = self._start(crew, number)

    def _busy(self, members: list[Member]) -> list[int]:
        """Who has left something half done at this moment, if anybody has before long."""
        numbers = {member.pid: number for number, member in enumerate(members)}
        until = time.monotonic() + AIM_S
        words = [table._core.arena.words for table in (self._tables.vault, self._tables.churn)]
        while time.monotonic() < until:
            for header_words in words:
                if header_words[DIRTY]:
                    found = numbers.get(header_words[TABLE_NOTE_PID])
                    if found is not None:
                        return [found]
        return []

    def _settle(self, number: int) -> None:
        """Finds exactly what a worker had been told was there, and clears it away."""
        record, base = self._record(number), self._bases[number]
        for identity in range(base + record[Word.REMOVING], base + record[Word.ADDED]):
            self._remove_whole(identity)
            self.tally.kept += 1
        # Of what it had begun and not been told about, the whole is there or nothing.
        for unsure in {record[Word.REMOVED], record[Word.ADDED]}:
            began = unsure < max(record[Word.REMOVING], record[Word.STARTED])
            if began and self._find(base + unsure):
                self._meter.call("remove", self._tables.vault.remove, base + unsure)
        left = set(self._identities(self._tables.vault))
        assert not left & set(range(base, base + record[Word.STARTED]))
        for thread in range(THREADS):
            self.tally.take(self._record(number, thread))

    def _record(self, number: int, thread: int = 0) -> memoryview:
        return memoryview(self._records.words[THREADS * number + thread])

    def _remove_whole(self, identity: int) -> None:
        assert self._find(identity), f"sequence {identity} was acknowledged and is lost"
        self._meter.call("remove", self._tables.vault.remove, identity)

    def _find(self, identity: int) -> bool:
        """Whether the vault has it; if so, whole."""
        try:
            found = self._meter.call("sequence", self._tables.vault.sequence, identity)
        except UnknownIdentityError:
            return False
        wrong = content.wrong_with_sequence(found, identity)
        assert not wrong, wrong
        assert found["who"][2] == length_of(identity)
        return True

    def _look_after(self, members: list[Member]) -> None:
        """What a survivor does between two kills."""
        now = time.monotonic_ns()
        for number, member in enumerate(members):
            member.look()
            for thread in range(THREADS):
                since = self._record(number, thread)[Word.SINCE_NS]
                assert not since or now - since < HANGS_S * 1e9, f"{member} hangs in a call"
        worker = Worker(self._tables, self._meter, 0, self._random)
        worker.watch()
        worker.disturb()
        worker.keep()
        if self._random.random() < 0.05:
            self._check()

    def _check(self) -> None:
        for table in (self._tables.vault, self._tables.churn):
            findings = self._meter.call("check", table.check)
            assert findings == [], findings
            identities = self._identities(table)
            assert len(set(identities)) == len(identities)

    def _identities(self, table: ArrayMemoryTable) -> list[int]:
        found: list[int] = self._meter.call("identities", table.identities).tolist()
        return found

    def _end(self, crew: Crew, members: list[Member]) -> None:
        """Ends everybody in peace; then the space of the dead must all have come back."""
        for member in members:
            member.tell("stop")
        crew.results()
        for number in range(self.processes):
            self._settle(number)
        record = self._meter.record
        assert record[Word.ADDED] - record[Word.REMOVED] <= KEPT
        for identity in range(record[Word.REMOVED], record[Word.ADDED]):
            self._remove_whole(identity)
        assert self._identities(self._tables.vault) == []
        self._check()
        for table in (self._tables.vault, self._tables.churn):
            self.tally.recoveries += table.stats().recoveries
            self._fill(table)
        self._check()
        self.tally.take(record)

    def _fill(self, table: ArrayMemoryTable) -> None:
        """A table takes as much as one in which nobody ever died, and ejects nothing for it."""
        for identity in self._identities(table):
            table.remove(identity)
        count, steps = table.maxlen // 100, 100
        for identity in range(count):
            table.add_sequence(identity, content.sequence(identity, steps, width=WIDTH))
        assert table.identities().tolist() == list(range(count))
        assert table.size() == count * steps
        assert table.stats().writing_transitions == 0
