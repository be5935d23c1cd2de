"""Without its package an integration says which extra brings it; shmtable imports none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shmtable import MissingExtraError
from shmtable.integrations.needed import needed

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "gymnasium": ("gymnasium", "gymnasium"),
    "minari": ("minari", "minari"),
    "ray": ("ray", "ray"),
    "sb3": ("sb3", "stable_baselines3"),
    "tensordict": ("tensordict", "tensordict"),
    "torchrl": ("tensordict", "tensordict"),  # all that it imports itself
}

WALLED = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[2]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Wall())
from shmtable import MissingExtraError
try:
    __import__("shmtable.integrations." + sys.argv[1])
except MissingExtraError as error:
    print(error)
else:
    print("imported")
"""


def without(package: str, module: str) -> str:
    """What importing a module of the integrations comes to where a package is not installed."""
    run = subprocess.run(
        [sys.executable, "-c", WALLED, module, package],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_names_its_extra(module: str) -> None:
    extra, package = EXTRAS[module]
    if module in ("minari", "sb3"):
        pytest.importorskip("gymnasium")
    said = without(package, module)
    assert f"needs {package}, not installed here" in said
    assert f"pip install 'shmtable[{extra}]'" in said


def test_torchrl_needs_no_gymnasium() -> None:
    pytest.importorskip("tensordict")
    assert without("gymnasium", "torchrl") == "imported\n"


def test_every_module_that_users_import_is_tried_without_its_package() -> None:
    inner = {"needed", "spaces", "episodes", "identities", "open_steps"}
    inner |= {"acting", "finished", "own_columns"}  # of collectors
    without_any = {"tensorboard", "prometheus"}  # until something of the package is made
    folder = ROOT / "shmtable" / "integrations"
    assert {path.stem for path in folder.glob("[a-z]*")} - inner - without_any == set(EXTRAS)


def test_what_else_goes_wrong_in_an_import_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_thing") as caught:  # noqa: SIM117
        with needed("gymnasium", extra="gymnasium"):
            __import__("no_such_thing")
    assert not isinstance(caught.value, MissingExtraError)


def test_importing_shmtable_imports_no_integration() -> None:
    code = "import sys, shmtable; print([m for m in sys.modules if 'integrations' in m])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
