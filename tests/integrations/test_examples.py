"""The examples of the documentation run, at a reduced size, as a user runs them.

In full, each goes on until its criterion is met, which takes from seconds to some minutes. Here the
goal is set so low that it is met at once, or what there is to do is little anyway.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples"
# What each needs, and how it is made short.
EXAMPLES = {
    "attach.py": (["gymnasium"], []),
    "gymnasium_collect.py": (["gymnasium"], ["--updates=150", "--goal=0"]),
    "impala_queue.py": (["gymnasium"], ["--updates=30", "--goal=0"]),
    "minari_mixed.py": (
        ["gymnasium", "minari", "h5py"],
        ["--transitions=500", "--updates=60", "--goal=0"],
    ),
    "own_mapper.py": ([], ["--episodes=300", "--goal=0"]),
    "own_strategy.py": (["gymnasium"], []),
    "ray_table.py": (["ray"], []),
    "recurrent_r2d2.py": (["gymnasium"], ["--updates=10", "--goal=0"]),
    "sac_pendulum.py": (["gymnasium"], ["--updates=30", "--goal=-2000"]),
    "sb3_dqn.py": (["stable_baselines3"], ["--steps=1200", "--goal=0"]),
    "tensordict_samples.py": (["tensordict"], []),
    "torchrl_dqn.py": (["torchrl"], ["--frames=800", "--goal=0"]),
}
LEARNING = set(EXAMPLES) - {"tensordict_samples.py", "ray_table.py"}


def run(example: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # A folder for Ray's sockets, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as short:
        return subprocess.run(
            [sys.executable, str(FOLDER / example), *arguments],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": search,
                "OMP_NUM_THREADS": "1",
                "MINARI_DATASETS_PATH": str(folder),
                "RAY_TMPDIR": short,
            },
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    packages, arguments = EXAMPLES[example]
    for package in packages:
        pytest.importorskip(package)
    if example == "attach.py":  # a name of its own
        arguments = [f"--name=lake-{os.getpid()}"]
    ended = run(example, arguments, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    if example == "ray_table.py":
        assert "a batch (512, 4) of 32 windows" in ended.stdout
    if example in LEARNING:
        assert re.search(r"^criterion: .*; reached: [-0-9.]+%?$", ended.stdout, re.MULTILINE)


def test_an_example_whose_criterion_is_not_met_says_so_and_fails(tmp_path: Path) -> None:
    ended = run("own_mapper.py", ["--episodes=20"], tmp_path)
    assert ended.returncode == 1
    assert "criterion: 95% of 100 goals reached; reached: " in ended.stdout
    assert ended.stderr == ""


def test_every_example_is_run() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(EXAMPLES)
