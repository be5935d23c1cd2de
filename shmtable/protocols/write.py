"""Adding sequences: reserve, copy, commit.

1. Under the lock: eject what must go, take a slot and rows, state WRITING.
2. Holding nothing: copy the columns into the rows, which are nobody else's.
3. Under the lock: state LIVE. From this store on the sequence is in the table.

A writer that dies in 1 or 2 leaves a WRITING slot, which others take back once the kernel says it
is dead; one that is interrupted gives the slot back itself. Killed after 3 but before the call
returned, it has added without knowing, and adding again meets a duplicate.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import Prepared
from shmtable.errors import DuplicateIdentityError, SpecError, WaitTimeoutError
from shmtable.index import Blocked, Growth, Request, Reservation
from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.protocols.device import refuse_lost, settle
from shmtable.protocols.hold import reserve_paced_locked
from shmtable.protocols.pace import Held
from shmtable.protocols.priorities import as_priority
from shmtable.protocols.wait import Wait

# More would only make others wait for the lock longer at a time.
_MOST_AT_ONCE = 64

# Sequences that one attachment can number; leaves as many attachments as there will ever be.
_COUNT_BITS = 40

Priority = float | npt.NDArray[np.float64] | None


def add(
    core: Core,
    sequences: Iterable[tuple[int, Any]],
    timeout_s: float | None,
    priority: Any = None,
) -> None:
    """Convert and check all sequences, by identity, and then add them; see ``_add_all``.

    Raises:
        SequenceError: one does not fit the columns; nothing has changed.
        PriorityError: the priority is none; nothing has changed.
    """
    core.converter.maxlen = core.maxlen()
    replace = core.options.on_duplicate == "replace"
    requests, prepared = [], []
    for identity, sequence in sequences:
        ready = core.converter.prepare(sequence)
        prepared.append(ready)
        requests.append(Request(identity, ready.length, ready.span, ready.extra, replace))
    if priority is not None:
        priority = as_priority(core, priority, prepared[0].length)
    if len(requests) > 1 and not replace:
        _refuse_repeats(core, [request.identity for request in requests])
    _add_all(core, requests, prepared, timeout_s, priority)


def add_generated(core: Core, sequence: Any, timeout_s: float | None, priority: Any = None) -> int:
    """Convert, check and add one sequence, under an identity that no other one has.

    An identity is made of the number of this attachment, which the table gives out once, and of a
    count within the process: nobody needs to be asked for each. Whatever came in under other
    rules (from a file, or named by a caller) is met under the lock, by the refusal of a second
    sequence with the same identity; the next numbers are tried then. They are negative, where
    callers' own rarely are.

    Returns:
        The identity.

    Raises:
        SequenceError, PriorityError: as ``add``; nothing has changed.
    """
    core.converter.maxlen = core.maxlen()
    prepared = core.converter.prepare(sequence)
    if priority is not None:
        priority = as_priority(core, priority, prepared.length)
    if core.attachments.number < 0:  # a forked child has none until it first takes the lock
        core.guard.run(core.random_locked)
    skip = 1
    while True:
        count = core.generated
        core.generated = count + skip
        number = core.attachments.number << _COUNT_BITS | count & (1 << _COUNT_BITS) - 1
        identity = -1 - (number & 2**63 - 1)
        # Not even a table that replaces may lose a sequence to a number made up here.
        request = Request(identity, prepared.length, prepared.span, prepared.extra, False)
        try:
            _add_all(core, [request], [prepared], timeout_s, priority)
        except DuplicateIdentityError:
            skip *= 2  # a restored file has as many in a row as its writer has added
        else:
            return identity


def _add_all(
    core: Core,
    requests: list[Request],
    sequences: list[Prepared],
    timeout_s: float | None,
    priority: Priority,
) -> None:
    """Add sequences in order, as many as may be under one hold of the lock.

    Each is added whole or not at all; those before a refused one stay.

    Args:
        core: the table.
        requests: one for each sequence.
        sequences: converted, and so valid.
        timeout_s: how long to wait for room that others are writing into; None for ever.
        priority: of the sequences: one for all, or float64 [length]; None for the default.

    Raises:
        DuplicateIdentityError: an identity is in the table.
        SharedMemoryError: the system has no memory left.
        WaitTimeoutError: no room in time.
        RateLimitedError: the limiter did not admit it in time.
        SpecError: under this limiter it could make adds and samples wait for each other for ever.
    """
    if core.index.reservations:
        core.guard.run(core.index.abort_abandoned_locked)
    # Closed by another thread, the file stays ours until the rows are written: to a process that
    # attaches to a file without users, nothing in it is being written any more.
    in_use = core.arena.in_use()
    done = 0
    try:
        while done < len(requests):
            batch = requests[done : done + _MOST_AT_ONCE]
            reservations = _reserve(core, batch, sys._getframe(), timeout_s)
            for number, reservation in enumerate(reservations, done):
                copy(core, reservation, sequences[number])
                core.receive(reservation.slot, reservation.start, reservation.length, priority)
            core.guard.run(_commit_locked, core, reservations, requests[done].replace)
            done += len(reservations)
    except BaseException:
        settle(core.memory)  # before the rows are somebody else's
        core.guard.run(core.index.abort_of_locked, sys._getframe())
        raise
    finally:
        del in_use


def _reserve(
    core: Core, requests: list[Request], caller: FrameType, timeout_s: float | None
) -> list[Reservation]:
    """Reserve at least one of the requests, waiting and growing as it takes."""
    wait: Wait | None = None
    while True:
        reservations, obstacle, seen = core.guard.run(_reserve_locked, core, requests, caller)
        if reservations:
            return reservations
        if isinstance(obstacle, Growth):
            core.grow(obstacle)
        elif obstacle is not None and not core.guard.run(core.index.sweep_locked):
            refuse_lost(core.memory)
            wait = wait or Wait(core, timeout_s, f.ADDS_WAITED_NS)
            held = isinstance(obstacle, Held)
            if wait.is_over():
                if held:
                    raise wait.rate_limited("add_sequence", obstacle.reason)
                raise WaitTimeoutError(
                    f"add_sequence found no room in {timeout_s:g} s: {obstacle.reason}; "
                    f"{core.company()}; give it a larger timeout_s",
                    timeout_s=timeout_s,
                )
            if held:
                wait.tell("add_sequence", obstacle.reason)
            wait.sleep(seen)


def _reserve_locked(
    core: Core, requests: list[Request], caller: FrameType
) -> tuple[list[Reservation], Growth | Blocked | None, int]:
    core.random_locked()  # a forked child joins here, before it has anything to lose
    reservations: list[Reservation] = []
    for request in requests:
        try:
            if core.arena.words[f.PACE]:
                outcome = reserve_paced_locked(core, request, caller)
            else:
                outcome = core.index.reserve_locked(request, core.victims_locked, caller)
        except (DuplicateIdentityError, SpecError):
            # What comes before it is added; the next round meets it again, and raises.
            if reservations:
                return reservations, None, 0
            raise
        if not isinstance(outcome, Reservation):
            return reservations, outcome, core.guard.bell.seen_locked()
        reservations.append(outcome)
        if outcome.replaces:
            # Both count until it is committed: room for the next would be made at others' cost.
            break
    return reservations, None, 0


def copy(core: Core, reservation: Reservation, sequence: Prepared) -> None:
    """Fill the rows of a reservation; the lock is not held."""
    start = reservation.start
    # The rows are ours, and so is what the row map says of them.
    core.arrays.row_slot[start : start + sequence.length] = reservation.slot
    core.storage.write(start, reservation.slot, sequence)


def _commit_locked(core: Core, reservations: list[Reservation], replace: bool) -> None:
    for reservation in reservations:
        core.index.commit_locked(reservation, replace, core.victims_locked)
        core.attachments.added(reservation.length)


def _refuse_repeats(core: Core, identities: list[int]) -> None:
    """Refuse a batch before its first store where that can be foreseen."""
    seen: set[int] = set()
    for identity in identities:
        if identity in seen:
            raise DuplicateIdentityError(
                f"identity {identity} occurs twice among the sequences given; give each its own",
                identity=identity,
            )
        seen.add(identity)
    core.guard.run(_refuse_known_locked, core, identities)


def _refuse_known_locked(core: Core, identities: list[int]) -> None:
    for identity in identities:
        core.index.refuse_duplicate_locked(identity)
