"""What a table's words say, in plain units: the same for who holds it and for who only looks."""

from __future__ import annotations

from typing import Any

from shmtable.index import Attachment, Layout
from shmtable.index import fields as f
from shmtable.protocols.pace import Pace
from shmtable.shm.header import LOCKS
from shmtable.types import ProcessStats


def counts(words: memoryview, pace: Pace) -> dict[str, Any]:
    """The fields of ``Stats`` that the header knows.

    Args:
        words: the header's: those of a table whose lock is held, or a copy of them.
        pace: of these words.

    Raises:
        ArenaDamagedError: they describe no limiter.
    """
    limiter = pace.limiter_locked()
    adds_blocked, samples_blocked = pace.blocked_locked()
    return {
        "transitions": words[f.LIVE_STEPS],
        "sequences": words[f.LIVE_COUNT],
        "writing_transitions": words[f.WRITING_STEPS],
        "maxlen": words[f.MAXLEN],
        "max_sequences": words[f.MAX_SEQUENCES],
        "sequences_added": words[f.SEQUENCE_TOTAL],
        "transitions_added": words[f.STEP_TOTAL],
        "sequences_removed": words[f.REMOVED],
        "windows_sampled": words[f.WINDOWS_SAMPLED],
        "transitions_sampled": words[f.STEPS_SAMPLED],
        "adds_waited_s": words[f.ADDS_WAITED_NS] / 1e9,
        "samples_waited_s": words[f.SAMPLES_WAITED_NS] / 1e9,
        "lock_waits": sum(words[lock.waits] for lock in LOCKS.values()),
        "lock_waited_s": sum(words[lock.waited_ns] for lock in LOCKS.values()) / 1e9,
        "limiter": "" if limiter is None else repr(limiter),
        "adds_blocked": adds_blocked,
        "samples_blocked": samples_blocked,
        "recoveries": words[f.RECOVERIES],
        "attachments": words[f.NEXT_ATTACHMENT],
    }


def reserved_bytes(words: memoryview, layout: Layout) -> int:
    """Bytes of memory that a table of this layout has taken from the system."""
    marks = {"row": f.RESERVED_ROWS, "slot": f.RESERVED_SLOTS, "bucket": f.RESERVED_BUCKETS}
    grown = sum(layout.item_bytes(per) * words[mark] for per, mark in marks.items())
    return layout.regions["slots"].offset + grown


def processes(attachments: list[Attachment], *, can_tell: bool) -> tuple[ProcessStats, ...]:
    """Who they are, and whether they are alive.

    Args:
        attachments: the table's.
        can_tell: whether the system can be asked for their numbers.
    """
    return tuple(
        ProcessStats(
            pid=attachment.pid,
            alive=not attachment.is_gone() if can_tell else None,
            joined_s_ago=attachment.joined_s_ago,
            sequences_added=attachment.sequences,
            transitions_added=attachment.steps,
            added_s_ago=attachment.added_s_ago,
            sampled_s_ago=attachment.sampled_s_ago,
        )
        for attachment in attachments
    )
