"""What must be true of the memory at every moment, and what it means for it to be true.

The modeller keeps an *ideal table* in ghost words: a set of sequences that each call changes at
exactly one store (add: LIVE; replace: LIVE of the new one, which removes the old one at the same
instant; eject, remove, take: FREE; clear and restore: the one store of live_from). The memory is
right when the table that anybody would find in it, after the recovery that a set dirty flag
asks for, holds exactly the ideal one. That one comparison is most of what is promised: nothing
acknowledged is lost, replace shows the old or the new and never both or neither, clear and
restore are all or nothing, nothing half-written shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model import words as at
from tests.model.index import Table
from tests.model.words import FREE, INDEX, LIVE, STRATEGIES, TAGS, THERE, WRITING

if TYPE_CHECKING:
    from tests.model.machine import State


def memory_problem(table: Table, words: bytes, dead: int, settled: bool) -> str:
    """What is wrong with the memory, in words; empty when nothing.

    Args:
        dead: bit p for each process that is gone (the holder too: as if it died now).
        settled: nobody is in a section, so a clear dirty flag promises derived words in order.
    """
    found = words
    if words[at.DIRTY] or not settled:
        section = table.rebuild(words, dead)
        if section.wrong:
            return f"in recovery: {section.wrong}"
        found = bytes(section.words)
    if settled and not words[at.DIRTY] & INDEX:
        wanted = table.derived(words)
        if words[at.DIRTY] & STRATEGIES:  # theirs is allowed to be out of date
            wanted[at.PRIORITY_SUM - at.DERIVED] = words[at.PRIORITY_SUM]
        if bytes(wanted) != words[at.DERIVED : at.DERIVED_END]:
            return "a derived word differs from what the slot table says, and dirty is clear"
    problem = (
        _content(table, found)
        or _slots(table, found)
        or _rows(table, found)
        or _counters(table, found)
    )
    return f"{problem} (in what recovery leaves)" if problem and found is not words else problem


def _content(table: Table, words: bytes) -> str:
    """The table holds what the ideal table holds, each identity once."""
    there = [slot for slot in table.slots if table.there(words, slot)]
    tags = sorted(words[at.TAG + slot] for slot in there)
    ideal = [tag for tag in range(TAGS) if words[at.FATE + tag] == THERE]
    if tags != ideal:
        if missing := sorted(set(ideal) - set(tags)):
            return f"lost: sequence {missing[0]} was acknowledged and nobody removed it"
        return f"a sequence that is not in the table shows: {tags}, ideally {ideal}"
    identities = [words[at.IDENTITY + slot] for slot in there]
    if len(set(identities)) < len(identities):
        return f"two sequences with one identity: {identities}"
    if table.rules.clear_in_one_section:
        for slot in table.slots:
            if words[at.STATE + slot] == LIVE and slot not in there:
                return f"slot {slot} is LIVE below live_from: invisible, and never freed"
    return ""


def _slots(table: Table, words: bytes) -> str:
    """Each LIVE slot has its own rows, its own strategies' fields and an order of its own."""
    orders = set()
    for slot in table.slots:
        if words[at.STATE + slot] != LIVE:
            continue
        tag = words[at.TAG + slot]
        if any(words[at.DATA + row] // 4 != tag for row in table.rows_of(words, slot)):
            return f"slot {slot} is LIVE with rows that are not its own"
        if words[at.PRIORITY + slot] // 8 != tag:
            return f"slot {slot} is LIVE without its own strategy fields"
        version, marks = words[at.VERSION + slot], table.rules.version_marks
        if marks == "around" and version % 2:
            return f"slot {slot} is LIVE with an odd version and nobody is writing"
        if marks == "counter" and version > words[at.UPDATES]:
            return f"slot {slot} was written by update {version}, which is still to come"
        orders.add(words[at.ORDER + slot])
        if words[at.ORDER + slot] >= words[at.NEXT_ORDER]:
            return (
                f"next_order {words[at.NEXT_ORDER]} will give order {words[at.ORDER + slot]} again"
            )
    if len(orders) < sum(words[at.STATE + slot] == LIVE for slot in table.slots):
        return "two sequences have the same order"
    return ""


def _rows(table: Table, words: bytes) -> str:
    """No row belongs to two slots."""
    owners: dict[int, int] = {}
    for slot in table.slots:
        if words[at.STATE + slot] != FREE:
            for row in table.rows_of(words, slot):
                if row in owners:
                    return f"row {row} belongs to slots {owners[row]} and {slot}"
                owners[row] = slot
    return ""


def _counters(table: Table, words: bytes) -> str:
    """Totals agree with the ideal table, and no limiter has let too much through."""
    bounds = table.bounds
    if words[at.STEP_TOTAL] != words[at.BORN_STEPS]:
        return f"step total {words[at.STEP_TOTAL]}, but {words[at.BORN_STEPS]} steps were committed"
    if bounds.lead is not None and words[at.BORN_STEPS] > bounds.lead + words[at.SAMPLES_OUT]:
        return f"the limiter let {words[at.BORN_STEPS]} steps in, {bounds.lead} ahead allowed"
    out, steps = words[at.SAMPLES_OUT], words[at.BORN_STEPS]
    if bounds.per_step is not None and out > bounds.per_step * steps:
        return f"the limiter let {out} samples out of {steps} steps"
    writing = sum(
        words[at.LENGTH + slot] for slot in table.slots if words[at.STATE + slot] == WRITING
    )
    if words[at.WRITING_STEPS] != writing:
        return f"{words[at.WRITING_STEPS]} steps count as being written, it is {writing}"
    handed = sum(words[at.HANDED + tag] > 0 for tag in range(TAGS))
    if handed > words[at.SAMPLE_TOTAL]:
        return f"{handed} sequences were used up and {words[at.SAMPLE_TOTAL]} uses counted"
    return _room(table, words)


def _room(table: Table, words: bytes) -> str:
    """At most maxlen steps, not counting the old one beside its own replacement.

    After a restore, what was being written meanwhile may come on top, until the next eject.
    """
    if any(0 < words[at.PUBLISH_AT + s] == words[at.LIVE_FROM] for s in table.slots):
        return ""
    replacing = {
        words[at.IDENTITY + slot] for slot in table.slots if words[at.STATE + slot] == WRITING
    }
    steps = sum(
        words[at.LENGTH + slot]
        for slot in table.slots
        if words[at.STATE + slot] == WRITING
        or (table.there(words, slot) and words[at.IDENTITY + slot] not in replacing)
    )
    return f"{steps} steps, maxlen is {table.bounds.maxlen}" if steps > table.bounds.maxlen else ""


def ownership_problem(state: State) -> str:
    """No row is copied into by one living process while another one, or a reader, counts on it."""
    copying = [
        (me, range(process.start, process.start + process.length))
        for me, process in enumerate(state.processes)
        if process.phase == "copy" and not state.dead >> me & 1
    ]
    for index, (me, rows) in enumerate(copying):
        for other, others in copying[index + 1 :]:
            if set(rows) & set(others):
                return f"P{me} and P{other} both live and own the same rows {sorted(rows)}"
    return ""
