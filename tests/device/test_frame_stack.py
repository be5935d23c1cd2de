"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.mappers.test_frame_stack import *  # noqa: F403
