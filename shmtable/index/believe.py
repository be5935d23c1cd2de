"""Before an attached file's numbers are used: could they be a table's?

A file may be damaged, or made to mislead. Every mark that later code uses as a bound is checked
here against the layout, which follows from the table's description alone, so that no loop and no
view can leave the memory that is really there. Contents that are merely wrong are the business of
``rebuild``.
"""

from __future__ import annotations

from shmtable.errors import ArenaDamagedError
from shmtable.index import fields as f
from shmtable.index.layout import MINIMUM_BUCKETS, Layout, row_limit
from shmtable.shm.header import GROW_WAITED_NS, GROW_WAITS, TABLE_WAITED_NS, TABLE_WAITS


def refuse_impossible(words: memoryview, layout: Layout, extra_rows: int, where: str) -> None:
    """Check the counters that only rise; they may be read without the lock.

    Raises:
        ArenaDamagedError: one of them cannot be.
    """
    buckets = layout.regions["buckets"].capacity
    limits = (
        ("reserved rows", words[f.RESERVED_ROWS], 1, layout.capacity_rows),
        ("reserved slots", words[f.RESERVED_SLOTS], 2, layout.capacity_slots),
        ("reserved buckets", words[f.RESERVED_BUCKETS], MINIMUM_BUCKETS, buckets),
        ("buckets", words[f.BUCKETS], MINIMUM_BUCKETS, words[f.RESERVED_BUCKETS]),
        ("slot high", words[f.SLOT_HIGH], 1, words[f.RESERVED_SLOTS]),
        ("maxlen", words[f.MAXLEN], 1, layout.capacity_rows),
        ("max sequences", words[f.MAX_SEQUENCES], 1, layout.capacity_slots),
        ("next order", words[f.NEXT_ORDER], 0, 1 << 62),
        ("live from", words[f.LIVE_FROM], 0, words[f.NEXT_ORDER]),
        ("step total", words[f.STEP_TOTAL], 0, 1 << 62),
        ("sequence total", words[f.SEQUENCE_TOTAL], 0, 1 << 62),
        ("updates", words[f.UPDATES], 0, 1 << 62),
        ("exits", words[f.EXITS], 0, 1 << 62),
        ("longest", words[f.LONGEST], 0, layout.capacity_rows),
        ("next attachment", words[f.NEXT_ATTACHMENT], 0, 1 << 62),
        ("windows sampled", words[f.WINDOWS_SAMPLED], 0, 1 << 62),
        ("recoveries", words[f.RECOVERIES], 0, 1 << 62),
        ("removed", words[f.REMOVED], 0, 1 << 62),
        ("transitions sampled", words[f.STEPS_SAMPLED], 0, 1 << 62),
        ("adds waited", words[f.ADDS_WAITED_NS], 0, 1 << 62),
        ("samples waited", words[f.SAMPLES_WAITED_NS], 0, 1 << 62),
        ("lock waits", words[TABLE_WAITS], 0, 1 << 62),
        ("lock waited", words[TABLE_WAITED_NS], 0, 1 << 62),
        ("growth lock waits", words[GROW_WAITS], 0, 1 << 62),
        ("growth lock waited", words[GROW_WAITED_NS], 0, 1 << 62),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise ArenaDamagedError(
                f"{where} contradicts itself: {name} is {value}, it must be {least} to {most}; "
                "create the table again",
                path=where,
            )
    rows = row_limit(words[f.MAXLEN], words[f.MAX_SEQUENCES], extra_rows)
    if not layout.can_grow:
        rows = words[f.MAXLEN] + extra_rows  # that of a single sequence, at the least
    if rows > layout.capacity_rows or words[f.BUCKETS] & (words[f.BUCKETS] - 1):
        raise ArenaDamagedError(
            f"{where} contradicts itself: its limits need {rows} rows of "
            f"{layout.capacity_rows}, in {words[f.BUCKETS]} buckets; create the table again",
            path=where,
        )
