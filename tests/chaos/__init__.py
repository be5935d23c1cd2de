"""Processes die, at every moment there is, and the others go on."""

from __future__ import annotations

import pytest

# So that what they find wrong is told in full.
pytest.register_assert_rewrite("tests.chaos.beside", "tests.chaos.content")
pytest.register_assert_rewrite("tests.chaos.every_store", "tests.chaos.storm")
