"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.formats.test_storing import *  # noqa: F403
