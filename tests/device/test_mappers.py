"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.contracts.test_mappers import *  # noqa: F403
