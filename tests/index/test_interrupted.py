"""Cut an operation off after any of its lines, repair, and find it done or not begun.

A process that is killed runs no ``finally`` and no ``except``: here an operation is abandoned by
an exception between two lines, its memory is repaired as the next holder of the lock would, and
compared with the states that the operation may leave.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from shmtable.index import Request, findings_locked
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from tests.index.worlds import World

# (live identities by order, identities being written)
State = tuple[list[int], list[int]]
Operation = Callable[[World], None]


class Killed(BaseException):
    """The process is gone here."""


def state(world: World) -> State:
    writing = [*world.slots_in(f.WRITING).tolist(), *world.slots_in(f.LOADED).tolist()]
    return world.identities(), sorted(world.arrays.slots[writing, f.IDENTITY].tolist())


def run_lines(operation: Operation, world: World, lines: int) -> bool:
    """Run an operation up to its ``lines``-th line of index code; False when it came further."""
    left = lines

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "shmtable/index/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation(world)
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


def prepared(max_sequences: int = 10) -> World:
    """Sequences 0 to 5 of 10 live steps, 2 and 4 gone again; maxlen 60, so 20 are free."""
    world = World(60, max_sequences)
    slots = [world.add(identity, 10) for identity in range(6)]
    world.index.eject_locked([slots[2], slots[4]])
    return world


def full() -> World:
    """Sequences 0 to 5 of 10 live steps, and room for no more."""
    world = World(60)
    for identity in range(6):
        world.add(identity, 10)
    return world


def reserve(identity: int, length: int, replace: bool = False) -> Operation:
    def operation(world: World) -> None:
        request = Request(identity, length, length, 0, replace)
        world.index.reserve_locked(request, world.oldest, sys._getframe())

    return operation


def commit(world: World) -> None:
    (slot,) = world.slots_in(f.WRITING).tolist()
    start, length = world.field(slot, f.START), world.field(slot, f.LENGTH)
    world.arrays.row_slot[start : start + length] = slot
    world.index.commit_locked(world.open)  # type: ignore[attr-defined]


def abort(world: World) -> None:
    world.index.abort_of_locked(world.caller)  # type: ignore[attr-defined]


def with_writing(identity: int, replace: bool = False) -> Callable[[], World]:
    def make() -> World:
        world = prepared()
        frame = sys._getframe()
        world.open = world.reserve(identity, 10, replace=replace, caller=frame)  # type: ignore
        world.caller = frame  # type: ignore[attr-defined]
        return world

    return make


def with_loaded() -> World:
    """As ``with_writing(7)``, and sequences 20, 0 and 21 read from a file."""
    world = with_writing(7)()
    for identity in (20, 0, 21):
        world.load(identity, 15)
    return world


def load(world: World) -> None:
    requests = [Request(1, 30, 30, 0, False), Request(9, 5, 6, 0, False)]
    world.index.load_locked(requests, sys._getframe())


def publish(world: World) -> None:
    world.index.publish_locked(world.slots_in(f.LOADED).tolist())


LIVE = [0, 1, 3, 5]
CASES: dict[str, tuple[Callable[[], World], Operation, list[State]]] = {
    "reserve": (prepared, reserve(7, 10), [(LIVE, []), (LIVE, [7])]),
    # Ejections stay, whatever becomes of the sequence they were made for.
    "reserve by ejecting": (
        prepared,
        reserve(7, 35),
        [(LIVE, []), ([1, 3, 5], []), ([3, 5], []), ([3, 5], [7])],
    ),
    "reserve the rows of the one that goes": (
        full,
        reserve(7, 10),
        [([0, 1, 2, 3, 4, 5], []), ([1, 2, 3, 4, 5], []), ([1, 2, 3, 4, 5], [7])],
    ),
    "reserve a replacement": (prepared, reserve(3, 10, True), [(LIVE, []), (LIVE, [3])]),
    "commit": (with_writing(7), commit, [(LIVE, [7]), ([*LIVE, 7], [])]),
    "commit a replacement": (
        with_writing(1, True),
        commit,
        [(LIVE, [1]), ([0, 3, 5, 1], [])],
    ),
    "abort": (with_writing(7), abort, [(LIVE, [7]), (LIVE, [])]),
    "eject": (
        prepared,
        lambda world: world.index.eject_locked(world.slots_in(f.LIVE)[:2].tolist()),
        [(LIVE, []), ([1, 3, 5], []), ([3, 5], [])],
    ),
    "clear": (
        with_writing(7),
        lambda world: world.index.clear_locked(),
        [(LIVE, [7]), ([], [7])],
    ),
    "load": (with_writing(7), load, [(LIVE, [7]), (LIVE, [1, 7]), (LIVE, [1, 7, 9])]),
    "publish": (
        with_loaded,
        publish,
        [(LIVE, [0, 7, 20, 21]), ([20, 0, 21], [7])],
    ),
    "resize": (prepared, lambda world: world.index.resize_locked(90, 15), [(LIVE, [])]),
    "enlarge the map": (
        lambda: prepared(600),
        lambda world: world.index.grow_buckets_locked(2048),
        [(LIVE, [])],
    ),
    "rebuild": (prepared, lambda world: world.index.rebuild_locked(), [(LIVE, [])]),
}


@pytest.mark.parametrize("name", CASES)
def test_cut_off_after_any_line_it_is_done_or_not_begun(name: str) -> None:
    make, operation, allowed = CASES[name]
    seen: list[State] = []
    lines = 0
    while True:
        world = make()
        lines += 1
        cut_off = run_lines(operation, world, lines)
        if world.words[DIRTY]:
            world.index.rebuild_locked()
        # Without the mark, whatever was stored must have left the index sound by itself.
        assert findings_locked(world.index) == [], f"cut off at line {lines}"
        if state(world) not in seen:
            seen.append(state(world))
        if not cut_off:
            break
    # Each state is met, in this order: later lines never take back what earlier ones did.
    assert seen == allowed
    assert lines > 5


def test_a_rebuild_cut_off_anywhere_is_completed_by_the_next() -> None:
    def half_done() -> World:
        world = prepared()
        world.reserve(7, 10)
        world.orphan(world.reserve(8, 10).slot)
        live = world.slots_in(f.LIVE)
        world.set(int(live[1]), f.IDENTITY, 5)
        world.words[f.LIVE_FROM] = world.field(int(live[0]), f.ORDER) + 1
        world.arrays.links[:] = 7
        return world

    lines = 0
    while True:
        world = half_done()
        lines += 1
        cut_off = run_lines(lambda world: world.index.rebuild_locked(), world, lines)
        world.index.rebuild_locked()
        assert findings_locked(world.index) == [], f"cut off at line {lines}"
        assert state(world) == ([3, 5], [7])
        if not cut_off:
            return


def test_generations_have_moved_on_wherever_rows_may_have_been_given_away() -> None:
    # What a reader compares: a slot that is not what it was has another generation.
    lines = 0
    while True:
        world = prepared()
        before = {s: world.field(s, f.GENERATION) for s in world.slots_in(f.LIVE).tolist()}
        lines += 1
        cut_off = run_lines(reserve(7, 35), world, lines)
        for slot, generation in before.items():
            if world.field(slot, f.STATE) != f.LIVE:
                assert world.field(slot, f.GENERATION) > generation
        if not cut_off:
            return
