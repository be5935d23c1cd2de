"""The live slots: in a list by order, and in an array without one. All of it is derived."""

from __future__ import annotations

from shmtable.index import fields as f
from shmtable.index.arrays import Arrays


def enter_locked(arrays: Arrays, slot: int, length: int) -> None:
    """A slot has become LIVE: it is the newest. DIRTY is set."""
    words, links = arrays.words, arrays.link_words
    base = slot * f.LINK_WORDS
    newest = links[f.OLDER]
    links[base + f.OLDER] = newest
    links[base + f.NEWER] = 0
    links[newest * f.LINK_WORDS + f.NEWER] = slot
    links[f.OLDER] = slot
    place = words[f.LIVE_COUNT]
    arrays.live_words[place] = slot
    links[base + f.PLACE] = place
    words[f.LIVE_COUNT] = place + 1
    words[f.LIVE_STEPS] += length


def leave_locked(arrays: Arrays, slot: int, length: int) -> None:
    """A slot is LIVE no longer. DIRTY is set."""
    words, links, live = arrays.words, arrays.link_words, arrays.live_words
    base = slot * f.LINK_WORDS
    older, newer = links[base + f.OLDER], links[base + f.NEWER]
    links[older * f.LINK_WORDS + f.NEWER] = newer
    links[newer * f.LINK_WORDS + f.OLDER] = older
    # The last of the live array takes the place that falls vacant.
    last = words[f.LIVE_COUNT] - 1
    moved, place = live[last], links[base + f.PLACE]
    live[place] = moved
    links[moved * f.LINK_WORDS + f.PLACE] = place
    words[f.LIVE_COUNT] = last
    words[f.LIVE_STEPS] -= length
