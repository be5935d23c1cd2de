"""Which module imports which, and what of it breaks the house's levels.

Modules import downwards only, whether at the top of the file, inside a function or for type
checking: a lower level never needs to know that a higher one exists.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Level of each file or folder right below the package; "" is the package's own ``__init__``,
#: which gathers the public names and so stands above all that it gathers.
LEVELS = {
    "_version": 0,
    "errors": 0,
    "types": 0,
    "shm": 1,
    "columns": 2,
    "index": 2,
    "strategies": 3,
    "limiters": 3,
    "mappers": 3,
    "adaptors": 3,
    "formats": 3,
    "protocols": 4,
    "interface": 5,
    "held": 5,
    "onlooker": 5,
    "pacing": 5,
    "table": 5,
    "checkpoint": 5,
    "crew": 5,
    "step_writer": 5,
    "writer": 5,
    "vector_writer": 5,
    "prefetch": 5,
    "streams": 1,
    "pinned": 2,
    "delivery": 4,
    "loader": 5,
    "dataset": 5,
    # Beside the table, whose columns they have to know: what collects steps, and what stands
    # before it.
    "proxies": 5,
    "proxy_wrappers": 5,
    "builder": 5,
    "joint": 5,
    "presets": 5,
    "rates": 5,
    "": 6,
    "integrations": 7,
    "report": 7,
    "demo": 8,
    "cli": 9,
    "__main__": 10,
}
REQUIRED = frozenset({"torch", "numpy", "filelock"})
#: Type checkers bring it themselves, so it may stand under TYPE_CHECKING.
TYPING_ONLY = frozenset({"typing_extensions"})
#: Only these may import anything beyond what shmtable requires.
OPTIONAL_USERS = frozenset({"integrations", "report", "cli", "demo"})


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        path, line: where the import stands.
        source, target: absolute dotted names of the importing and of the imported module.
        typing_only: whether it stands under ``if TYPE_CHECKING:`` and so never happens.
    """

    path: Path
    line: int
    source: str
    target: str
    typing_only: bool


def imports(package: Path) -> Iterator[Import]:
    """Every import statement and every ``import_module("...")`` of a package's modules."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        source = ".".join(parts[:-1] if is_package else parts)
        here = parts[:-1]  # what one leading dot means
        tree = ast.parse(path.read_text(), str(path))
        typing_only = _typing_only(tree)
        for node in ast.walk(tree):
            for target in _targets(node, here, package):
                line: int = getattr(node, "lineno", 0)
                yield Import(path, line, source, target, node in typing_only)


def _typing_only(tree: ast.AST) -> set[ast.AST]:
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    ]
    return {node for block in blocks for part in block.body for node in ast.walk(part)}


def _targets(node: ast.AST, here: tuple[str, ...], package: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
        module = ".".join(filter(None, (base, node.module or "")))
        for alias in node.names:
            # `from package import name` names a module where there is one, else a thing in it.
            submodule = f"{module}.{alias.name}"
            yield submodule if _exists(submodule, package) else module
    elif isinstance(node, ast.Call) and node.args:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        first = node.args[0]
        if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
            yield str(first.value)


def _exists(module: str, package: Path) -> bool:
    path = package.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _unit(module: str) -> str:
    return (module.split(".") + [""])[1]


def upward_imports(package: Path) -> list[str]:
    """``file:line`` of each import that is not downwards, and of modules without a level."""
    findings = []
    for found in imports(package):
        if found.target.split(".")[0] != package.name:
            continue
        source, target = _unit(found.source), _unit(found.target)
        unknown = [unit for unit in (source, target) if unit not in LEVELS]
        if unknown:
            findings.append(f"{found.path}:{found.line}: {unknown[0]!r} has no level in {__file__}")
        elif LEVELS[source] <= LEVELS[target] and not _same_folder(source, target, package):
            findings.append(
                f"{found.path}:{found.line}: {found.source} (level {LEVELS[source]}) "
                f"imports {found.target} (level {LEVELS[target]})"
            )
    return findings


def _same_folder(source: str, target: str, package: Path) -> bool:
    if source == target:
        return True
    # The files right below the package share a folder too.
    folders = [unit for unit in (source, target) if (package / unit).is_dir()]
    return not folders and LEVELS[source] == LEVELS[target]


def undeclared_imports(package: Path) -> list[str]:
    """``file:line`` of each import of a package that installing shmtable does not bring."""
    known = REQUIRED | sys.stdlib_module_names | {package.name}
    findings = []
    for found in imports(package):
        top = found.target.split(".")[0]
        if top in known or _unit(found.source) in OPTIONAL_USERS:
            continue
        if not (found.typing_only and top in TYPING_ONLY):
            findings.append(
                f"{found.path}:{found.line}: {found.source} imports {found.target}, "
                f"which only {', '.join(sorted(OPTIONAL_USERS))} may"
            )
    return findings
