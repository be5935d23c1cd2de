"""What other code may ask of a table, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from shmtable.adaptors import Adaptor
from shmtable.formats import TableSerializationVersion
from shmtable.types import SampleResult


class MemoryTable(Protocol):
    """What samplers of experience need of a table.

    Attributes:
        adaptors: applied in order to every sample.
    """

    adaptors: list[Adaptor]

    def sample(self, count: int, sequence_length: int) -> SampleResult:
        """Draw ``count`` windows of ``sequence_length`` transitions."""
        ...

    def size(self) -> int:
        """Number of transitions in the table."""
        ...

    def full(self) -> bool:
        """Whether adding may eject."""
        ...

    def add_sequence(self, identity: int, sequence: Mapping[str, Any]) -> None:
        """Add a fully terminated sequence."""
        ...

    def store(
        self, path: str, version: TableSerializationVersion = TableSerializationVersion.LATEST
    ) -> bool:
        """Write the whole table to the file ``path + ".zip"``."""
        ...

    def restore(self, path: str, override_version: TableSerializationVersion | None = None) -> bool:
        """Replace the table's content by that of the file ``path + ".zip"``."""
        ...
