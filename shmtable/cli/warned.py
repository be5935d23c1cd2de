"""What reading a file warns of, as people at a terminal want to see it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_told() -> Iterator[None]:
    """Afterwards, say each warning in one sentence on standard error.

    That the Legacy format is deprecated is nothing to whoever is asking about it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    for warning in caught:
        print(f"shmtable: {warning.message}", file=sys.stderr)
