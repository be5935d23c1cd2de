"""Columns: what they are, how values become rows, where rows lie, how windows come out."""

from __future__ import annotations

from shmtable.columns.backend import Backend, Handle, backend_of
from shmtable.columns.convert import Converter, Prepared, as_step, as_tag, window_rows
from shmtable.columns.device import DeviceStorage
from shmtable.columns.device_rows import device_bytes
from shmtable.columns.dtypes import DTYPES, DType, as_dtype
from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column, MapperLike, TagColumn, VirtualColumn
from shmtable.columns.steps import Steps
from shmtable.columns.storage import CpuStorage
from shmtable.columns.windows import MASK_NAME, Storage, Windows, gather_columns

__all__ = [
    "DTYPES",
    "MASK_NAME",
    "Backend",
    "Column",
    "Converter",
    "CpuStorage",
    "DType",
    "DeviceStorage",
    "Handle",
    "MapperLike",
    "Prepared",
    "Schema",
    "Steps",
    "Storage",
    "TagColumn",
    "VirtualColumn",
    "Windows",
    "as_dtype",
    "as_step",
    "as_tag",
    "backend_of",
    "device_bytes",
    "gather_columns",
    "window_rows",
]
