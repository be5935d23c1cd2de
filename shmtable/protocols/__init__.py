"""How a sequence gets in and a sample gets out while other processes do the same, or die."""

from __future__ import annotations

from shmtable.protocols.core import Core
from shmtable.protocols.options import Options
from shmtable.protocols.priorities import update_priorities
from shmtable.protocols.read import sample
from shmtable.protocols.restore import restore
from shmtable.protocols.store import store
from shmtable.protocols.write import add, add_generated

__all__ = [
    "Core",
    "Options",
    "add",
    "add_generated",
    "restore",
    "sample",
    "store",
    "update_priorities",
]
