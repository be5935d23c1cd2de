"""Mappers: what virtual columns are computed with."""

from __future__ import annotations

from shmtable.mappers.age import AgeMapper
from shmtable.mappers.base import Mapper, check_same_element
from shmtable.mappers.burn_in import BurnIn
from shmtable.mappers.frame_stack import FrameStack
from shmtable.mappers.n_step import NStepDiscount, NStepElementMapper, NStepReturn
from shmtable.mappers.next_element import NextElementMapper
from shmtable.mappers.next_n import NextNElementWrapper
from shmtable.mappers.position import PositionMapper
from shmtable.mappers.previous_element import PreviousElementMapper
from shmtable.mappers.synthetic_dones import SyntheticDones

# By the name a table's header records; a mapper in this list needs nothing else to be attached to.
MAPPERS: dict[str, type[Mapper]] = {
    mapper.__name__: mapper
    for mapper in (
        AgeMapper,
        BurnIn,
        FrameStack,
        NStepDiscount,
        NStepElementMapper,
        NStepReturn,
        NextElementMapper,
        NextNElementWrapper,
        PositionMapper,
        PreviousElementMapper,
        SyntheticDones,
    )
}

__all__ = [
    "MAPPERS",
    "AgeMapper",
    "BurnIn",
    "FrameStack",
    "Mapper",
    "NStepDiscount",
    "NStepElementMapper",
    "NStepReturn",
    "NextElementMapper",
    "NextNElementWrapper",
    "PositionMapper",
    "PreviousElementMapper",
    "SyntheticDones",
    "check_same_element",
]
