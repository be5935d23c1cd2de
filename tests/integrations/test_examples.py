"""The examples of the documentation run, at a reduced size, as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples"
# What each needs, how it is made short, and what it says in the end.
EXAMPLES = {
    "gymnasium_collect.py": (["gymnasium"], ["--updates", "150"], "update 100: "),
    "sb3_dqn.py": (["stable_baselines3"], ["--steps", "1200"], "after 1280 steps"),
    "tensordict_samples.py": (["tensordict"], [], "batch_size=torch.Size([4, 5])"),
    "ray_table.py": (["ray"], [], "a batch (512, 4) of 32 windows"),
    "torchrl_dqn.py": (["torchrl"], ["--frames", "800"], "longest episode: "),
    "minari_offline.py": (
        ["minari", "h5py"],
        ["--transitions", "500", "--updates", "150"],
        "update 100: loss",
    ),
}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, tmp_path: Path, short_path: Path) -> None:
    packages, arguments, said = EXAMPLES[example]
    for package in packages:
        pytest.importorskip(package)
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    run = subprocess.run(
        [sys.executable, str(FOLDER / example), *arguments],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": search,
            "OMP_NUM_THREADS": "1",
            "MINARI_DATASETS_PATH": str(tmp_path),
            "RAY_TMPDIR": str(short_path),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    assert said in run.stdout


def test_every_example_is_run() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(EXAMPLES)
