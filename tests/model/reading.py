"""Reading without the lock and proving it afterwards; writing back; priorities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model import words as at
from tests.model.machine import Move, Operation, Process, View, section_move
from tests.model.words import CHANGED, Section, priority_of


def picked(view: View, process: Process, slot: int, phase: str) -> Process:
    """The process with what it remembers of the slot it picked."""
    words = view.words
    return Process(
        process.call,
        phase,
        slot,
        words[at.GENERATION + slot],
        words[at.UPDATES if view.table.rules.version_marks == "counter" else at.VERSION + slot],
        words[at.START + slot],
        words[at.LENGTH + slot],
        exits=words[at.EXITS],
    )


def unwritten(view: View, process: Process) -> bool:
    """Whether no update has written the picked slot's rows since."""
    version = view.words[at.VERSION + process.slot]
    if view.table.rules.version_marks == "counter":
        return version <= process.version
    return version == process.version


def gather_row(view: View, process: Process, then: str) -> Move:
    """Copy the next row out, without the lock."""
    row = process.start + len(process.seen)
    seen = (*process.seen, view.words[at.DATA + row])
    after = process._replace(seen=seen, phase=then if len(seen) == process.length else "gather")
    return Move(f"P{view.me} reads row {row}: {seen[-1]}", after)


def torn(view: View, process: Process) -> str:
    """What is wrong with a window about to be handed out: it must be what stands there now."""
    words = view.words
    tags = {value // 4 for value in process.seen}
    if len(tags) > 1:
        return f"torn window handed out: rows of sequences {sorted(tags)}"
    rows = words[at.DATA + process.start : at.DATA + process.start + process.length]
    if bytes(process.seen) != rows:
        return f"torn window handed out: {process.seen}, the rows are {tuple(rows)}"
    if words[at.TAG + process.slot] not in tags:
        return "a window of another sequence than the picked one is handed out"
    return ""


@dataclass(frozen=True)
class Read(Operation):
    """Sample one whole sequence: pick under the lock, gather without, validate under it.

    ``count``: whether times_sampled and the totals are kept (limiters need them).
    ``among``: it is one window of several; the loss of another one makes it be proved once more.
    """

    count: bool = False
    among: bool = False

    phases = ("pick", "gather", "validate")
    locked = frozenset({"pick", "validate"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        if process.phase == "pick":
            yield from self._pick(view, process)
        elif process.phase == "gather":
            yield gather_row(view, process, "validate")
        else:
            yield from self._validate(view, process)

    def _pick(self, view: View, process: Process) -> Iterator[Move]:
        if not self._admitted(view):
            yield Move(f"P{view.me} is held back by the limiter, times out", self.done(process))
            return
        slots = [slot for slot in view.table.slots if view.table.visible(view.words, slot)]
        for slot in slots:
            section = Section(view.words)
            if self.count and not view.table.rules.samples_counted_at_validation:
                section.put(at.SAMPLE_TOTAL, view.words[at.SAMPLE_TOTAL] + 1)
            after = picked(view, process, slot, "gather")
            yield section_move(f"P{view.me} picks slot {slot}", section, after)
        if not slots:
            yield Move(f"P{view.me} finds nothing", self.done(process))

    def _admitted(self, view: View) -> bool:
        """The limiter, where there is one: samples so far, and this one, against the steps."""
        per_step = view.table.bounds.per_step
        if per_step is None or not self.count:
            return True
        return view.words[at.SAMPLE_TOTAL] + 1 <= per_step * view.words[at.STEP_TOTAL]

    def _validate(self, view: View, process: Process) -> Iterator[Move]:
        table, words, slot = view.table, view.words, process.slot
        # Where no generation has risen, none is looked at: this one's neither.
        there = words[at.EXITS] == process.exits or (
            table.visible(words, slot) and words[at.GENERATION + slot] == process.generation
        )
        unchanged = there and unwritten(view, process)
        if self.among and not process.renewed:
            yield from self._renew(view, process, there, unchanged)
        if table.rules.validate and not unchanged:
            yield Move(f"P{view.me} sees a change, draws again", self.done(process))
            return
        if table.rules.samples_admitted_at_validation and not self._admitted(view):
            yield Move(f"P{view.me} is held back by the limiter, times out", self.done(process))
            return
        if wrong := torn(view, process):
            yield Move(f"P{view.me} validates", process, wrong=wrong)
            return
        section = Section(words)
        if self.count:
            section = table.open(words)
            section.put(at.TIMES + slot, words[at.TIMES + slot] + 1)
            out = (at.SAMPLES_OUT, words[at.SAMPLES_OUT] + 1)
            counted = 1 if table.rules.samples_counted_at_validation else 0
            section.put(at.SAMPLE_TOTAL, words[at.SAMPLE_TOTAL] + counted, out)
            table.close(section)
        yield section_move(f"P{view.me} validates", section, self.done(process))

    def _renew(self, view: View, process: Process, there: bool, unchanged: bool) -> Iterator[Move]:
        """Another window was lost: from here on the proof counts, for what was read or is anew."""
        if unchanged or (there and not view.table.rules.renewal_checks_versions):
            now = process._replace(
                version=view.words[at.UPDATES], exits=view.words[at.EXITS], renewed=True
            )
            section = Section(view.words)
            yield section_move(f"P{view.me} keeps it beside a lost one", section, now)
            anew = now._replace(phase="gather", seen=())
            yield section_move(f"P{view.me} gathers it anew", section, anew)


@dataclass(frozen=True)
class Update(Operation):
    """Write a visible sequence's rows anew, in place, under the lock.

    Ghosts do not follow it: an update cut off by a kill leaves some rows written (only a whole
    sequence is atomic). What must not happen is a reader's window half before, half after.
    """

    phases = ("update",)
    locked = frozenset({"update"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        slots = [slot for slot in view.table.slots if view.table.visible(view.words, slot)]
        for slot in slots:
            yield self._write(view, process, slot)
        if not slots:
            yield Move(f"P{view.me} has nothing to update", self.done(process))

    def _write(self, view: View, process: Process, slot: int) -> Move:
        table, marks = view.table, view.table.rules.version_marks
        section = table.open(view.words)
        if marks == "counter":
            number = section.words[at.UPDATES] + 1
            if table.rules.counter_first:
                section.put(at.UPDATES, number)
            section.put(at.VERSION + slot, number)
        if marks in ("around", "before"):
            section.put(at.VERSION + slot, section.words[at.VERSION + slot] + _step(marks))
        for row in table.rows_of(section.words, slot):
            section.put(at.DATA + row, section.words[at.DATA + row] + 1)
        if marks in ("around", "after"):
            section.put(at.VERSION + slot, section.words[at.VERSION + slot] + _step(marks))
        if marks == "counter":
            section.put(at.UPDATES, number)
        table.close(section)
        return section_move(f"P{view.me} updates slot {slot}", section, self.done(process))


def _step(marks: str) -> int:
    """A single mark goes from even to even."""
    return 1 if marks == "around" else 2


@dataclass(frozen=True)
class SetPriority(Operation):
    """A learner's delayed priority update of a sequence it sampled."""

    phases = ("pick", "store")
    locked = frozenset({"pick", "store"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        table, words = view.table, view.words
        if process.phase == "pick":
            for slot in table.slots:
                if table.visible(words, slot):
                    after = picked(view, process, slot, "store")
                    # The learner remembers which sequence it is about: `version` is of no use.
                    yield Move(
                        f"P{view.me} picks slot {slot}",
                        after._replace(version=words[at.TAG + slot]),
                    )
            yield Move(f"P{view.me} finds nothing", self.done(process))
            return
        slot = process.slot
        same = words[at.GENERATION + slot] == process.generation
        if not table.visible(words, slot) or (table.rules.priority_checks_generation and not same):
            yield Move(f"P{view.me} ignores a stale priority", self.done(process))
            return
        section = table.open(words)
        section.put(at.PRIORITY + slot, priority_of(process.version, CHANGED))
        table.close(section)
        yield section_move(f"P{view.me} sets a priority", section, self.done(process))
