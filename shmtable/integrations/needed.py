"""Says which extra brings a package that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shmtable.errors import MissingExtraError


@contextmanager
def needed(*packages: str, extra: str) -> Iterator[None]:
    """Surrounds the import of optional packages.

    Args:
        *packages: the packages imported inside.
        extra: the extra of shmtable that brings them.

    Raises:
        MissingExtraError: one of them is not installed. What else goes wrong inside, such as a
            package that lacks one of its own, is raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise MissingExtraError(
            f"shmtable.integrations needs {missing}, not installed here; "
            f"install the extra that brings it: pip install 'shmtable[{extra}]'",
            packages=[missing],
            extra=extra,
        ) from error
