"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.protocols.test_read import *  # noqa: F403
