"""What is built of this tree: an archive of the sources, a wheel, and what the wheel installs."""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
pytest.importorskip("pip")

ROOT = Path(__file__).parents[2]
MODULES = {str(p.relative_to(ROOT)) for p in (ROOT / "shmtable").rglob("*.py")}
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('out'))"
# Used where nothing but the package and what it requires can be imported.
WALL = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Wall())
sys.path.insert(0, INSTALLED)
"""
WORKS = """
import multiprocessing
import shmtable as st

def work(table):
    with table.writer() as writer:
        for step in range(5):
            writer.append(obs=[step], actions=step)
        writer.end(obs=[5])

columns = [
    st.Column("obs", (1,), "float32"),
    st.VirtualColumn("next_obs", (1,), "float32", "obs", st.NextElementMapper),
    st.Column("actions", (), "int64"),
]
with st.uniform_replay(columns, maxlen=100) as table:
    worker = multiprocessing.get_context("fork").Process(target=work, args=(table,))
    worker.start()
    batch = table.sample(8, 2, timeout_s=60)
    worker.join()
    assert (batch["next_obs"] == batch["obs"] + 1).all()
print(st.__file__, st.__version__)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is to be built, without what building leaves behind."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    leftovers = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "shmtable", copy / "shmtable", ignore=leftovers)
    return copy


def build(tree: Path, what: str) -> Path:
    (tree / "out").mkdir(exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-c", BUILD, what], cwd=tree, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return tree / "out" / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build(tree, "build_wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel alone."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(folder), str(wheel)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return folder


def bare(code: str, installed: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code where the extras of this package, and the tools of its tests, are missing."""
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    extras = " ".join(options["options.extras_require"].values())
    names = {line.partition(">")[0].replace("-", "_") for line in extras.split()}
    wall = WALL.replace("REFUSED", repr(names)).replace("INSTALLED", repr(str(installed)))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", wall + code],
        cwd=folder,
        env={**clean, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_wheel_has_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == MODULES | {"shmtable/py.typed"}


def test_an_archive_of_the_sources_makes_the_same_wheel(
    tree: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(build(tree, "build_sdist")) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(tmp_path, filter="data")
        else:
            archive.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    assert (unpacked / "LICENSE").exists()
    again = zipfile.ZipFile(build(unpacked, "build_wheel"))
    first = zipfile.ZipFile(wheel)
    assert sorted(again.namelist()) == sorted(first.namelist())
    for name in MODULES:
        assert again.read(name) == first.read(name)


def test_what_a_wheel_says_of_itself(wheel: Path) -> None:
    contents = zipfile.ZipFile(wheel)
    (name,) = (name for name in contents.namelist() if name.endswith("/METADATA"))
    said = email.message_from_bytes(contents.read(name))
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.partition(">")[0] for line in needed) == ["filelock", "numpy", "torch"]
    versions: dict[str, str] = {}
    exec((ROOT / "shmtable" / "_version.py").read_text(), versions)
    assert said["Version"] == versions["__version__"]
    assert wheel.name == f"shmtable-{said['Version']}-py3-none-any.whl"
    assert said["License-File"] == "LICENSE"
    assert said.get_payload().startswith("# shmtable")


def test_the_version_stands_in_one_place() -> None:
    versions: dict[str, str] = {}
    exec((ROOT / "shmtable" / "_version.py").read_text(), versions)
    version = versions["__version__"]
    places = ["setup.cfg", "setup.py", "docs/conf.py", *sorted(MODULES)]
    texts = {name: (ROOT / name).read_text() for name in places}
    said = (f'"{version}"', f"= {version}\n")
    found = [name for name in places if any(one in texts[name] for one in said)]
    assert found == ["shmtable/_version.py"]


def test_installed_it_works_with_what_it_requires_alone(installed: Path, tmp_path: Path) -> None:
    run = bare(WORKS, installed, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(installed / "shmtable"))


@pytest.mark.parametrize("arguments", [["--help"], ["ls"]])
def test_the_installed_command_works(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    script = (installed / "bin" / "shmtable").read_text().partition("\n")[2]
    run = bare(f"sys.argv = ['shmtable', *{arguments!r}]\n{script}", installed, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_an_import_brings_nothing_heavy_beyond_torch(installed: Path, tmp_path: Path) -> None:
    code = (
        "import torch, torch.multiprocessing, numpy.random, filelock\n"
        "before = set(sys.modules)\n"
        "import shmtable\n"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))\n"
    )
    run = bare(code, installed, tmp_path)
    assert run.returncode == 0, run.stderr
    others = set(run.stdout.split()) - {"shmtable"} - set(sys.stdlib_module_names)
    assert others <= {"numpy", "torch", "filelock"}
