"""What the package promises: its public names, and where they are documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

_DIRECTIVE = re.compile(
    r"auto(?:class|exception|function|data|decorator)::? +shmtable\.(\w+)$", re.MULTILINE
)


def unsorted_names(module: ModuleType) -> list[str]:
    """Neighbours in ``__all__`` that stand the wrong way round: constants first, then the rest."""

    def key(name: str) -> tuple[int, str]:
        # The order that ruff keeps: constants, classes, everything else.
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    names = list(module.__all__)
    pairs = zip(names, names[1:], strict=False)
    return [f"{one} before {two}" for one, two in pairs if key(one) >= key(two)]


def missing_names(module: ModuleType) -> list[str]:
    """Names in ``__all__`` that do not exist, and public ones that it leaves out."""
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    listed = set(module.__all__)
    return [
        *(f"{name} is listed and not there" for name in sorted(listed - set(dir(module)))),
        *(f"{name} is there and not listed" for name in sorted(public - listed)),
    ]


def undocumented_names(module: ModuleType, reference: Path) -> list[str]:
    """Public names without a place in the reference, or without a docstring of their own."""
    text = "\n".join(page.read_text() for page in sorted(reference.rglob("*.md")))
    placed = set(_DIRECTIVE.findall(text))
    findings = []
    for name in module.__all__:
        value = getattr(module, name)
        if name.startswith("__"):
            continue
        if name not in placed:
            findings.append(f"{name} has no directive in {reference}")
        if (inspect.isclass(value) or inspect.isroutine(value)) and not written_docstring(value):
            findings.append(f"{name} has no docstring")
    stale = sorted(placed - set(module.__all__))
    return findings + [f"{name} is documented and not public" for name in stale]


def undocumented_members(cls: type) -> list[str]:
    """Public methods and properties of a class that say nothing, there or in a base class."""
    return [
        f"{cls.__name__}.{name} has no docstring"
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod))
        and not inspect.getdoc(getattr(cls, name))
    ]


def written_docstring(value: object) -> str:
    """A docstring that was written: a dataclass without one gets its signature as its own."""
    doc = (getattr(value, "__doc__", None) or "").strip()
    name = getattr(value, "__name__", "")
    return "" if doc.startswith(f"{name}(") else doc
