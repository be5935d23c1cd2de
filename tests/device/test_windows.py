"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from tests.columns.test_windows import *  # noqa: F403

# Left out: columns may be views of one block here; see test_storage.py.
del test_no_two_results_share_memory  # noqa: F821
