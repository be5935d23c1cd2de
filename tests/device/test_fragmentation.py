"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.table.test_fragmentation import *  # noqa: F403

# Left out: a device's memory is taken at creation and does not grow.
del test_a_full_table_takes_little_more_memory_than_its_content  # noqa: F821
