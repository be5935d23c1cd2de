"""Processes that run scripts of calls against the modelled memory, and what may befall them.

A call (an `Operation`) goes through phases. A *locked* phase is a critical section: its stores
are recorded by running it (see `Section`) and then replayed with a possible kill, or Ctrl-C,
after every one of them. An unlocked phase makes at most one store, or reads one row.

Two grains, with the same verdicts (there is a test of that): by default the stores of a section
that nobody outside the lock can see are replayed without letting others in between, because
nothing the others may do without the lock reads or writes those words; row stores are seen by
readers and always let others in. With ``Bounds.every_store`` every store does.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from tests.model import words as at
from tests.model.checker import Step
from tests.model.index import Table
from tests.model.invariants import memory_problem, ownership_problem
from tests.model.rules import PROTOCOL, Bounds, Rules
from tests.model.words import FREE, LIVE, LOADED, NOTES, TAKEN, WRITING, Section, Store, difference

NOBODY = -1
ABORT = "abort"


class Process(NamedTuple):
    """Where a process stands in its script, and what it remembers of the slot it works on."""

    call: int = 0
    phase: str = ""
    slot: int = 0
    generation: int = 0
    version: int = 0
    start: int = 0
    length: int = 0
    seen: tuple[int, ...] = ()  # rows copied so far, or slots loaded so far
    old: int = 0  # slot + 1 of what is to be replaced, as it was at reserve
    exits: int = 0
    renewed: bool = False  # another of its windows was lost before


class State(NamedTuple):
    words: bytes
    processes: tuple[Process, ...]
    dead: int = 0  # bit p: process p is gone
    crashes: int = 0  # still to come
    interrupts: int = 0
    holder: int = NOBODY  # of the lock, between two steps
    pending: tuple[Store, ...] = ()  # what the holder has still to store
    after: Process | None = None  # what the holder becomes then


class Move(NamedTuple):
    """What a call does next: its stores, and where the process stands after the last."""

    label: str
    process: Process
    stores: tuple[Store, ...] = ()
    wrong: str = ""


class View(NamedTuple):
    """What a call sees when it plans its next move."""

    table: Table
    words: bytes
    dead: int
    me: int

    threads_of: tuple[int, ...]

    @property
    def owner(self) -> int:
        """What this process writes into a slot's owner word."""
        return self.threads_of[self.me] + 1

    def notes_of_siblings(self) -> Iterator[int]:
        """The note numbers of the other threads of this process."""
        for other, whose in enumerate(self.threads_of):
            if other != self.me and whose == self.threads_of[self.me]:
                yield from range(other * NOTES, (other + 1) * NOTES)

    def claim(self, process: Process, number: int = 0) -> int:
        """The running number of a reservation: never used twice in one process."""
        return (self.me + 1) * 32 + process.call * NOTES + number


class Operation:
    """One call of a script; `phases[0]` is where it begins."""

    phases: tuple[str, ...] = ()
    locked: frozenset[str] = frozenset()

    def moves(self, view: View, process: Process) -> Iterable[Move]:
        """What the call can do in ``process.phase``; nothing means it waits."""
        raise NotImplementedError

    def done(self, process: Process) -> Process:
        return Process(call=process.call + 1)


def section_move(label: str, section: Section, process: Process) -> Move:
    return Move(label, process, tuple(section.stores), section.wrong)


class Machine:
    """A scenario: a script of calls for each process, under some rules and bounds.

    ``threads_of``: for each script, the process it is a thread of (by default each is a process
    of its own). Threads of one process write the same owner and die together. ``before``: calls
    that have been made, undisturbed, when the scenario begins. ``strangers``: processes that do
    not know the strategies' classes.
    """

    def __init__(
        self,
        name: str,
        *scripts: tuple[Operation, ...],
        rules: Rules = PROTOCOL,
        bounds: Bounds | None = None,
        threads_of: tuple[int, ...] = (),
        before: tuple[Operation, ...] = (),
        strangers: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.scripts = scripts
        self.bounds = bounds or Bounds()
        self.before = before
        self.threads_of = threads_of or tuple(range(len(scripts)))
        self.table = Table(rules, self.bounds)
        stranger = Table(rules, self.bounds, stranger=True)
        self._tables = [stranger if me in strangers else self.table for me in range(len(scripts))]
        self._judged: dict[tuple[bytes, int], str] = {}

    # What the checker asks.

    def initial(self) -> Iterable[State]:
        words = bytearray(at.TOTAL)
        words[at.NEXT_ORDER] = 1
        processes = (Process(),) * len(self.scripts)
        for call in self.before:
            self._run_alone(call, words)
        yield State(bytes(words), processes, 0, self.bounds.crashes, self.bounds.interrupts)

    def _run_alone(self, call: Operation, words: bytearray) -> None:
        process = Process(phase=call.phases[0])
        while process.call == 0:
            view = View(self.table, bytes(words), 0, 0, self.threads_of)
            move = next(iter(call.moves(view, process)))
            for store in move.stores:
                store.apply(words)
            process = move.process

    def finished(self, state: Hashable) -> bool:
        assert isinstance(state, State)
        return all(
            state.dead >> me & 1 or process.call == len(self.scripts[me])
            for me, process in enumerate(state.processes)
        )

    def show(self, before: Hashable, after: Hashable) -> str:
        assert isinstance(before, State) and isinstance(after, State)
        return difference(before.words, after.words)

    def problem(self, state: Hashable) -> str:
        assert isinstance(state, State)
        dead = state.dead if state.holder == NOBODY else state.dead | 1 << state.holder
        key = (state.words, dead)
        found = self._judged.get(key)
        if found is None:
            settled = state.holder == NOBODY
            found = self._judged[key] = memory_problem(self.table, state.words, dead, settled)
        if not found and self.bounds.watch_rows:
            found = ownership_problem(state)
        return found or self._leak(state)

    def _leak(self, state: State) -> str:
        """What a living process reserved and forgot stays reserved for as long as it lives."""
        for slot in self.table.slots:
            owner = state.words[at.OWNER + slot] - 1
            held = state.words[at.STATE + slot] in (WRITING, LOADED, TAKEN)
            if held and not self.table.owner_dead(state.words, slot, state.dead):
                ended = [
                    process.call == len(self.scripts[me])
                    for me, process in enumerate(state.processes)
                    if self.threads_of[me] == owner
                ]
                if all(ended):
                    return f"leak: slot {slot} stays reserved and its owner has forgotten it"
        return ""

    # What can happen next.

    def steps(self, state: Hashable) -> Iterator[Step]:
        assert isinstance(state, State)
        for me, process in enumerate(state.processes):
            if state.dead >> me & 1:
                continue
            if state.holder == me:
                assert state.after is not None
                yield from self._replay(state, me, state.pending, state.after, f"P{me} goes on")
            elif process.call < len(self.scripts[me]):
                yield from self._call(state, me, process)
            else:
                continue
            if state.crashes:
                yield self._killed(state, me, state.words, f"P{me} is KILLED")
            inside = state.holder == me or process.phase not in ("", ABORT)
            if state.interrupts and inside:
                yield self._interrupted(state, me, state.words, f"P{me} gets CTRL-C")

    def _call(self, state: State, me: int, process: Process) -> Iterator[Step]:
        call = self.scripts[me][process.call]
        phase = process.phase or call.phases[0]
        if phase == ABORT or phase in call.locked:
            if state.holder != NOBODY:
                return
            if self._tables[me].must_repair(state.words):
                section = self._tables[me].rebuild(state.words, state.dead)
                label = f"P{me} finds dirty, rebuilds"
                yield from self._run(state, me, section_move(label, section, process))
                return
        process = process._replace(phase=phase)
        view = View(self._tables[me], state.words, state.dead, me, self.threads_of)
        moves = [self._abort(view, process)] if phase == ABORT else call.moves(view, process)
        for move in moves:
            yield from self._run(state, me, move)

    def _run(self, state: State, me: int, move: Move) -> Iterator[Step]:
        if move.wrong:
            yield Step(move.label, state, move.wrong)
        else:
            yield from self._replay(state, me, move.stores, move.process, move.label)

    def _replay(
        self, state: State, me: int, stores: tuple[Store, ...], after: Process, label: str
    ) -> Iterator[Step]:
        """Make the stores one by one; a fault may come after each."""
        words = bytearray(state.words)
        for index, store in enumerate(stores):
            for part in store.parts():
                torn = words[:]
                part.apply(torn)
                yield from self._faults(state, me, bytes(torn), f"{label}, in a vector store")
            store.apply(words)
            if index == len(stores) - 1:
                break
            if self.bounds.every_store or store.is_data:
                yield Step(
                    f"{label}, store {index + 1}",
                    state._replace(
                        words=bytes(words), holder=me, pending=stores[index + 1 :], after=after
                    ),
                )
                return
            here = f"{label}, after {index + 1} of {len(stores)} stores"
            yield from self._faults(state, me, bytes(words), here)
        processes = _with(state.processes, me, after)
        after_all = State(bytes(words), processes, state.dead, state.crashes, state.interrupts)
        yield Step(label, self._still_held(state, 1 << me, after_all))

    def _faults(self, state: State, me: int, words: bytes, where: str) -> Iterator[Step]:
        if state.crashes:
            yield self._killed(state, me, words, f"{where} is KILLED")
        if state.interrupts:
            yield self._interrupted(state, me, words, f"{where} gets CTRL-C")

    def _killed(self, state: State, me: int, words: bytes, label: str) -> Step:
        """A process dies with all its threads and all its private memory."""
        left = bytearray(words)
        processes, dead = state.processes, state.dead
        for other, whose in enumerate(self.threads_of):
            if whose == self.threads_of[me]:
                dead |= 1 << other
                processes = _with(processes, other, Process())
                for base in (at.NOTE, at.NOTE_GENERATION, at.NOTE_CLAIM):
                    left[base + other * NOTES : base + (other + 1) * NOTES] = bytes(NOTES)
        after = State(bytes(left), processes, dead, state.crashes - 1, state.interrupts)
        return Step(label, self._still_held(state, dead, after), fault=True)

    def _interrupted(self, state: State, me: int, words: bytes, label: str) -> Step:
        """An exception leaves the section: unlocked, dirty as it stands, reservation open."""
        notes = words[at.NOTE + me * NOTES : at.NOTE + (me + 1) * NOTES]
        call = state.processes[me].call
        then = Process(call, ABORT) if any(notes) else Process(call + 1)
        processes = _with(state.processes, me, then)
        after = State(words, processes, state.dead, state.crashes, state.interrupts - 1)
        return Step(label, self._still_held(state, 1 << me, after), fault=True)

    @staticmethod
    def _still_held(state: State, leaving: int, after: State) -> State:
        """Somebody else's section is not disturbed by what befalls the ``leaving`` (bits)."""
        if state.holder == NOBODY or leaving >> state.holder & 1:
            return after
        return after._replace(holder=state.holder, pending=state.pending, after=state.after)

    # The one section every call may need: giving back what an interrupted call left open.

    def _abort(self, view: View, process: Process) -> Move:
        """Free the reservations in this process's notes; itself interruptible and repeatable."""
        section = view.table.open(view.words)
        words = section.words
        for index in range(view.me * NOTES, (view.me + 1) * NOTES):
            if not words[at.NOTE + index]:
                continue
            slot = words[at.NOTE + index] - 1
            state = words[at.STATE + slot]
            if self._mine(view, words, slot, index):
                if state == TAKEN:
                    view.table.return_taken(section, slot)
                else:
                    view.table.leave(section, slot)
            section.put(at.NOTE + index, 0)
        view.table.close(section)
        return section_move(
            f"P{view.me} aborts what it left open", section, Process(process.call + 1)
        )

    def _mine(self, view: View, words: bytearray, slot: int, note: int) -> bool:
        """Whether the slot still is the reservation of the note (private word ``note``)."""
        if words[at.STATE + slot] in (FREE, LIVE) or words[at.OWNER + slot] != view.owner:
            return False
        if self.table.rules.own_by == "slot":
            return True
        if self.table.rules.own_by == "claim":
            return words[at.CLAIM + slot] == words[at.NOTE_CLAIM + note]
        ahead = words[at.GENERATION + slot] - words[at.NOTE_GENERATION + note]
        return ahead == 0 or (ahead == 1 and self.table.rules.own_by == "either")


def _with(processes: tuple[Process, ...], me: int, changed: Process) -> tuple[Process, ...]:
    return (*processes[:me], changed, *processes[me + 1 :])
