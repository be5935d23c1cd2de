"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.table.test_adding import *  # noqa: F403

# Left out: a device's memory is taken at creation and does not grow.
del test_memory_that_cannot_be_had_changes_nothing  # noqa: F821
