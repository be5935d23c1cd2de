"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.multiprocess.test_priorities import *  # noqa: F403
