"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.protocols.test_restored import *  # noqa: F403

# Left out: a device's memory is taken at creation and does not grow.
del test_a_table_that_is_restored_into_its_last_slots_makes_adders_wait  # noqa: F821
del test_what_lies_in_no_gap_together_is_loaded_in_parts  # noqa: F821
del test_memory_for_a_large_file_is_taken_in_large_steps  # noqa: F821
