"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.table.test_life import *  # noqa: F403

# Left out: a device's memory is taken at creation and does not grow.
del test_a_pickled_table_is_the_same_table  # noqa: F821
