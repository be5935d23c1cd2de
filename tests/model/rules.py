"""The protocol's decisions, each a switch, and the size of the table it is tried on.

``Rules()`` is the protocol. Every known-bad variant is one switch turned (or two, where another
rule also stands in the way of the harm): ``replace(PROTOCOL, generation_before_free=False)``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What the protocol decides; the defaults are the protocol's own answers."""

    # Sections and recovery.
    dirty_cleared_last: bool = True
    stranger_keeps_bit: bool = True  # the strategies' dirty bit, when it does not know them
    rebuild_in_vectors: bool = False  # all generations in one vector store, then all states
    steps_of_committed_only: bool = True  # rebuild takes the step total from LIVE and TAKEN slots

    # Reserve, commit, leave.
    generation_before_free: bool = True  # leaving a slot: generation + 1, then FREE
    owner_before_writing: bool = True
    fields_before_live: bool = True  # the strategies' fields, and all else not derived
    total_after_live: bool = True  # the table's step total, which limiters read
    commit_is_one_store: bool = True  # not a vector store of fields and state together
    commit_checks_generation: bool = True  # and, always, WRITING and owner
    commit_checks_identity: bool = True  # a restore may have published it meanwhile
    reclaim_needs_proof: bool = True  # the kernel's, not a time-out's
    map_has_writing: bool = True
    replace_keeps_old: bool = True  # until the new one is LIVE
    replace_looks_again: bool = True  # which is the old one: asked at commit, not at reserve
    replace_may_give_up: bool = True  # refuse when only the old one is in the way

    # What an interrupted process left reserved.
    note_before_state: bool = True
    notes_all_states: bool = True  # LOADED and TAKEN too, not only WRITING
    # How it recognises its own: by claim number; by "slot" (one note per slot and process, the
    # owner decides); by "generation"; or by "either" generation, noted or one more.
    own_by: str = "claim"

    # clear and restore.
    honour_live_from: bool = True  # pickers, readers and rebuild test order >= live_from
    clear_in_one_section: bool = True
    clear_spares_writing: bool = True
    restore_at_once: bool = True  # by one store of live_from
    restore_raises_order_first: bool = True
    publish_above_live_from: bool = True  # or what a clear left there looks like a publication
    publish_at_reset: bool = True  # a fresh LOADED slot must not look published
    loaded_fields_at_publish: bool = True  # rebuild zeroes the leaves of non-LIVE slots

    # take.
    take_exclusive: bool = True  # TAKEN, and still ours at the end
    take_frees_last: bool = True  # after the copy and the count
    take_counts_first: bool = True
    take_skips_replaced: bool = True
    returned_tests_live_from: bool = True  # TAKEN goes back to LIVE only if not cleared since
    used_up_at_once: bool = True  # without TAKEN: where it is validated, not in a section later
    returned_gets_highest: bool = True  # its leaf was zeroed while it was TAKEN
    sweep_returns_taken: bool = True  # a taker that dies outside a section leaves no dirty flag

    # Reading and writing back.
    validate: bool = True
    # What stays beside a lost window: proved unwritten, or a later proof could not tell.
    renewal_checks_versions: bool = True
    # When the word rises that tells whether any generation has: "before" it does, "after", "never".
    exits_rise: str = "before"
    # How an update shows: "counter", one number for the table, raised and then stored into the slot
    # before the rows; or by increments of the slot's own version "around" the rows, "before" or
    # "after" them; or by "none".
    version_marks: str = "counter"
    counter_first: bool = True  # raised before the slot gets it
    priority_checks_generation: bool = True

    # Limiters.
    limiter_counts_writing: bool = True
    writing_is_derived: bool = True
    samples_admitted_at_validation: bool = True
    samples_counted_at_validation: bool = True


PROTOCOL = Rules()


@dataclass(frozen=True)
class Bounds:
    """How big the modelled table is and what may befall its processes."""

    slots: int = 2
    rows: int = 4
    maxlen: int = 4
    crashes: int = 2
    interrupts: int = 0
    lead: int | None = None  # limiter: steps inserted <= lead + samples counted
    per_step: int | None = None  # limiter: samples <= per_step * steps inserted
    watch_rows: bool = True  # report two living owners of a row before they do harm
    every_store: bool = False  # see `machine`: let others in between any two stores
