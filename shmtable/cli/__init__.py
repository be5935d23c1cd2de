"""The command line: ``shmtable COMMAND`` or ``python -m shmtable COMMAND``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from shmtable.cli.parser import parser
from shmtable.errors import ShmTableError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; those it was started with if None.

    Returns:
        The exit code: 0 done, 1 an error that is explained on standard error or a problem that
        was looked for and found, 130 ended by Ctrl-C.

    Raises:
        SystemExit: with code 2, for arguments that are no command, explained likewise.
    """
    options = parser().parse_args(arguments)
    try:
        result = options.run(options)
        if result is not None:  # else it has said everything itself
            print(json.dumps(result) if options.json else options.show(result), flush=True)
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain about it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ShmTableError, OSError) as error:
        print(f"shmtable: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(options.code(result))
