"""Modules import downwards only, and the package needs torch, numpy and filelock alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.imports import LEVELS, undeclared_imports, upward_imports

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "shmtable"


def test_modules_import_downwards_only() -> None:
    assert upward_imports(PACKAGE) == []


def test_only_optional_parts_import_optional_packages() -> None:
    assert undeclared_imports(PACKAGE) == []


def _plant(root: Path, **sources: str) -> Path:
    package = root / "shmtable"
    for name in ("__init__", "errors", "types", "table", "writer", "shm/__init__", "shm/lock"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text("")
    for name in ("columns", "index", "strategies", "demo"):
        (package / name).mkdir()
        (package / name / "__init__.py").write_text("")
    for name, source in sources.items():
        path = package / f"{name.replace('__', '/')}.py"
        path.write_text(source)
    return package


@pytest.mark.parametrize(
    ("module", "source", "line"),
    [
        ("errors", "import shmtable.table", 1),
        ("shm__lock", "\nfrom ..table import ArrayMemoryTable", 2),
        ("shm__lock", "from .. import table", 1),
        ("shm__lock", "from shmtable import index", 1),
        ("shm__lock", "from shmtable import ArrayMemoryTable", 1),
        ("shm__lock", "def later():\n    from shmtable.columns import Column", 2),
        ("columns__spec", "from shmtable.index import view", 1),
        (
            "columns__spec",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..strategies import x",
            3,
        ),
        ("table", "import importlib\nimportlib.import_module('shmtable.demo')", 2),
        ("__init__", "from .demo import main", 1),
        ("novelty", "import os\nfrom . import errors", 2),
    ],
)
def test_each_kind_of_upward_import_is_found(
    tmp_path: Path, module: str, source: str, line: int
) -> None:
    name = "__init__" if module == "__init__" else module
    package = _plant(tmp_path)
    path = package / (f"{name}.py" if name == "__init__" else f"{name.replace('__', '/')}.py")
    path.write_text(source)
    findings = upward_imports(package)
    assert len(findings) == 1, findings
    assert findings[0].startswith(f"{path}:{line}: ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("types", "from .errors import SpecError"),
        ("table", "from shmtable.writer import Writer"),
        ("shm/lock", "from . import futex\nfrom .. import errors"),
        ("strategies/base", "from shmtable.index import view\nfrom ..columns import spec"),
        ("demo/main", "from shmtable import ArrayMemoryTable"),
        ("__init__", "from .table import ArrayMemoryTable\nfrom shmtable.errors import SpecError"),
    ],
)
def test_downward_imports_and_neighbours_are_fine(tmp_path: Path, module: str, source: str) -> None:
    package = _plant(tmp_path)
    (package / f"{module}.py").write_text(source)
    assert upward_imports(package) == []


def test_an_undeclared_package_is_found(tmp_path: Path) -> None:
    package = _plant(tmp_path)
    (package / "table.py").write_text("import os\n\ndef later():\n    import rich.table")
    (package / "demo" / "view.py").write_text("import rich, torch.nn, numpy")
    typing_only = "if TYPE_CHECKING:\n    from typing_extensions import Self"
    (package / "writer.py").write_text(f"from typing import TYPE_CHECKING\n{typing_only}")
    findings = undeclared_imports(package)
    assert len(findings) == 1
    assert findings[0].startswith(f"{package / 'table.py'}:4: ")
    assert "rich.table" in findings[0]


def test_every_part_of_the_package_has_a_level() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts - {"__init__"} - set(LEVELS) == set()


# Blocks every import that is not of the standard library or already there before shmtable.
BLOCKED = """
import sys
import torch, numpy, filelock

class Wall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"torch", "numpy", "filelock", "shmtable"}:
            raise ImportError(f"{name} is not among what shmtable requires")

sys.meta_path.insert(0, Wall())
try:
    import gymnasium
except ImportError as error:
    assert "not among" in str(error)
else:
    raise SystemExit("the wall lets everything through")
import shmtable
print(len(shmtable.__all__))
"""


def test_importing_needs_only_what_is_required() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 10
