"""Interpreters that are not supported are told so at once."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("has_lock", "status"), [("True", 0), ("False", 1)])
def test_without_the_interpreters_lock_nothing_is_imported(has_lock: str, status: int) -> None:
    code = f"import sys; sys._is_gil_enabled = lambda: {has_lock}; import shmtable"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert result.returncode == status
    said = b"ImportError: shmtable does not support Python without its global interpreter lock yet"
    assert (said in result.stderr) == bool(status)
