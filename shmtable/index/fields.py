"""Where each number of the index lies: slot fields, link fields and counters.

Slots are numbered from 1. Slot 0 is never given out: as a link it means "none", and it is the
sentinel that closes the two circular lists (by address and by order), so a fresh, all-zero
segment already is an empty index.
"""

from __future__ import annotations

# States of a slot. A store into STATE is what commits a change; see ``Index``.
FREE = 0
WRITING = 1
LIVE = 2
LOADED = 3  # read from a file, not published yet

# ``slots``: int64 [slot, 8], one cache line each. Everything a sampler needs to know of a slot.
SLOT_WORDS = 8
STATE = 0
GENERATION = 1  # rises by one at every exit from LIVE or WRITING, before STATE; never falls
IDENTITY = 2
START = 3  # first row; constant from WRITING until FREE, as are LENGTH, SPAN and IDENTITY
LENGTH = 4  # transitions
SPAN = 5  # rows: LENGTH, and those that a column brings beyond it
ORDER = 6  # number of the commit; unique, rises with time
VERSION = 7  # number of the last update of its rows in place (see UPDATES); 0 for none

# ``notes``: int64 [slot, 8], what is needed less often.
OWNER_PID = 0  # who reserved the slot: the only one who may write its rows while WRITING
OWNER_START = 1  # its start time, because pids are used again
OWNER_ATTACHMENT = 2
EXTRA = 3  # bit i: stored column i brought one row more than LENGTH
EXTRA_BITS = 63  # stored columns from here on have their bit in EXTRA_MORE
STEPS_AT = 4  # transitions committed to the table up to and including this sequence
PUBLISH_AT = 5  # LOADED only: it becomes LIVE when LIVE_FROM gets this value; -1 for none
EXTRA_MORE = 6
SEQUENCES_AT = 7  # likewise STEPS_AT: sequences committed

# ``links``: int64 [slot, 8], all derived.
LINK_WORDS = 8
LEFT = 0  # neighbours by address, circular through slot 0
RIGHT = 1
GAP = 2  # free rows between this extent and RIGHT's; 0 for the last one, whose rest is open
BIN_PREVIOUS = 3  # gaps of similar size, as slot + 1; 0 ends the list
BIN_NEXT = 4
OLDER = 5  # neighbours by order (LIVE only), circular through slot 0
NEWER = 6
PLACE = 7  # position in the ``live`` array (LIVE only)

# Counters: words of the header. The first group only ever rises and is raised before what
# depends on it; the second is derived; the third is advisory.
NEXT_ORDER = 64
LIVE_FROM = 65  # LIVE slots of a lower order count as gone (this is what ``clear`` stores)
STEP_TOTAL = 66
MAXLEN = 67
MAX_SEQUENCES = 68
RESERVED_ROWS = 69
RESERVED_SLOTS = 70
RESERVED_BUCKETS = 71
NEXT_ATTACHMENT = 72
LONGEST = 73  # an upper bound of every LENGTH
SEQUENCE_TOTAL = 80
UPDATES = 81  # rises by one with every update in place, before the rows are stored
EXITS = 82  # rises before any GENERATION does: where it has not, none has

LIVE_COUNT = 96
LIVE_STEPS = 97
WRITING_COUNT = 98
WRITING_STEPS = 99
FREE_COUNT = 100
SLOT_HIGH = 101  # every slot ever used is below; at least 1 because slot 0 counts
ROW_HIGH = 102  # no occupied row at or above
BUCKETS = 103  # size of the identity map, a power of two

SATURATED = 128  # an add has had to eject since the last clear or resize
WINDOWS_SAMPLED = 129
RECOVERIES = 130
REMOVED = 131
CROWDED = 132  # some process has no entry among the attachments
SWEEP_AT_NS = 133  # CLOCK_MONOTONIC: when somebody is to look for slots of the dead again
STEPS_SAMPLED = 134  # transitions of the windows handed out
ADDS_WAITED_NS = 135  # all calls together; see ``Waited``
SAMPLES_WAITED_NS = 136

# How adds and samples are paced; see ``protocols.pace``.
PACE = 160  # how often it was set; the sets of words below take turns; 0: never
PACE_SETS = (176, 192)
