"""The command: ``python -m shmtable.demo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from shmtable.demo.extras import require_extras
from shmtable.demo.options import Options, parse
from shmtable.errors import MissingExtraError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo and returns its exit code (``--help`` lists them)."""
    return play(parse(arguments))


def play(options: Options) -> int:
    """The same for options that are parsed already."""
    try:
        require_extras()
        # A picture that cannot be written should not be found out after all the work.
        options.output.mkdir(parents=True, exist_ok=True)
    except (MissingExtraError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        # Only now, because it imports the packages that were just looked for.
        from shmtable.demo.run import run

        return run(options)
    except KeyboardInterrupt:
        return 130  # before there was anything to sum up, or for the second time


# Spawned actors import this module again under another name; they must not run the demo.
if __name__ == "__main__":
    sys.exit(main())
