"""Tables to load from, and the beginning of an iteration."""

from __future__ import annotations

import itertools
from typing import Any

from tests.tables import small_sequence


def fill(table: Any, sequences: int = 20, length: int = 10) -> Any:
    for identity in range(sequences):
        table.add_sequence(identity, small_sequence(identity, length))
    return table


def take(loader: Any, count: int) -> list[dict[str, Any]]:
    """The first batches of an iteration, which ends then."""
    iterator = iter(loader)
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches
