"""Slots, extents, identities: which sequence lies where, and its recovery."""

from __future__ import annotations

from shmtable.index.arrays import Arrays
from shmtable.index.attachments import Attachment, Attachments
from shmtable.index.believe import refuse_impossible
from shmtable.index.check import findings_locked
from shmtable.index.layout import Extra, Layout
from shmtable.index.manager import Index
from shmtable.index.owners import Reservation
from shmtable.index.plan import Blocked, Growth, Request
from shmtable.index.view import IndexView

__all__ = [
    "Arrays",
    "Attachment",
    "Attachments",
    "Blocked",
    "Extra",
    "Growth",
    "Index",
    "IndexView",
    "Layout",
    "Request",
    "Reservation",
    "findings_locked",
    "refuse_impossible",
]
