"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.table.test_sampling import *  # noqa: F403
