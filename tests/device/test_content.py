"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.table.test_content import *  # noqa: F403

# Left out: a device's memory is taken at creation and does not grow.
del test_not_full_after_resizing  # noqa: F821
