"""Adaptors: change whole batches before they are handed out."""

from __future__ import annotations

from shmtable.adaptors.base import Adaptor
from shmtable.adaptors.cast import KeyCastAdaptor
from shmtable.adaptors.dict_obs import DictObsAdaptor
from shmtable.adaptors.scale import KeyScaleAdaptor
from shmtable.adaptors.terminal import TerminalAdaptor

__all__ = [
    "Adaptor",
    "DictObsAdaptor",
    "KeyCastAdaptor",
    "KeyScaleAdaptor",
    "TerminalAdaptor",
]
