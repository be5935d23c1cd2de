"""The demo over simulated nodes: one is lost, and the learner goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")
pytest.importorskip("gymnasium")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_node_is_lost_and_learning_goes_on(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    arguments = ["--nodes", "2", "--lose-at", "200", "--threshold", "12", "--time-limit", "200"]
    run = subprocess.run(
        [sys.executable, "-m", "shmtable.demo.on_ray", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr
    assert " is switched off, with " in run.stdout
    assert "update 500: mean return " in run.stdout
    assert "\nsolved after " in run.stdout
    left = {name for name in os.listdir("/dev/shm") if "cartpole-" in name} - before
    assert left == set()
