"""Looks for the packages that only the demo needs, before anything is started."""

from __future__ import annotations

from importlib.util import find_spec

from shmtable.errors import MissingExtraError

PACKAGES = ("gymnasium", "matplotlib", "rich")


def require_extras(packages: tuple[str, ...] = PACKAGES) -> None:
    """Checks that every package can be imported, without importing it.

    Raises:
        MissingExtraError: names all that are missing and the command that installs them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the demo needs {' and '.join(missing)}, not installed here; "
            "install the extra that brings them: pip install 'shmtable[demo]'",
            packages=missing,
            extra="demo",
        )
