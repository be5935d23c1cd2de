"""Mappers: what virtual columns are computed with."""

from __future__ import annotations

from shmtable.mappers.base import Mapper, check_same_element
from shmtable.mappers.next_element import NextElementMapper
from shmtable.mappers.next_n import NextNElementWrapper
from shmtable.mappers.synthetic_dones import SyntheticDones

# By the name a table's header records; a mapper in this list needs nothing else to be attached to.
MAPPERS: dict[str, type[Mapper]] = {
    mapper.__name__: mapper for mapper in (NextElementMapper, NextNElementWrapper, SyntheticDones)
}

__all__ = [
    "MAPPERS",
    "Mapper",
    "NextElementMapper",
    "NextNElementWrapper",
    "SyntheticDones",
    "check_same_element",
]
