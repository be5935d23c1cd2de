"""The Python code that README and docs show, as programs that can be run.

The ``python`` blocks of one page, in order, are one program. A block whose first line is a
comment naming a file (``# actors.py``) begins a program of its own under that name; the blocks
after it belong to it until the next such line.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+|~~~+)(?P<info>.*)$")
_NAMED = re.compile(r"^# (?P<name>[a-z_]+\.py)\b")
#: Blocks that are read and not run. Anything else is refused, so that no code hides by its label.
SHOWN_ONLY = {"", "text", "console", "mermaid", "bibtex"}
# Python 3.12 and later warn about every fork of a process with threads, which torch has.
_FORK_WARNING = "ignore:This process:DeprecationWarning"
_DIRECTIVE = re.compile(r"^\{[a-z:-]+\}")


@dataclass
class Program:
    """One program of a page, and where each of its lines came from."""

    page: Path
    name: str
    lines: list[str] = field(default_factory=list)

    def add(self, first_line: int, code: list[str]) -> None:
        """Appends a block so that line numbers in tracebacks are those of the page."""
        self.lines += [""] * (first_line - 1 - len(self.lines)) + code


def programs(page: Path) -> list[Program]:
    """The programs of one page.

    Raises:
        ValueError: a block has a label that is neither run nor known to be shown only.
    """
    found: list[Program] = []
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if not opening:
            continue
        start = number
        while number < len(lines) and lines[number].strip() != opening["ticks"]:
            number += 1
        code = [line[len(opening["indent"]) :] for line in lines[start:number]]
        number += 1
        label = opening["info"].strip()
        if label == "python":
            named = _NAMED.match(code[0]) if code else None
            if named or not found:
                found.append(Program(page, named["name"] if named else f"{page.stem}.py"))
            found[-1].add(start + 1, code)
        elif label not in SHOWN_ONLY and not _DIRECTIVE.match(label):
            raise ValueError(f"{page}:{start}: a block labelled {label!r} would not be tested")
    return found


def run(program: Program, folder: Path, timeout_s: float = 180.0) -> str:
    """Runs a program in a folder as a user would; its output, or AssertionError with all of it."""
    path = folder / program.name
    path.write_text("\n".join(program.lines) + "\n")
    root = Path(__file__).parents[2]
    search = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-W", _FORK_WARNING, path.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = ""
    try:
        output, _ = process.communicate(timeout=timeout_s)
        ended = f"ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"did not end within {timeout_s:g} s"
    finally:
        # Its children too, which would outlive it: the group is its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        output = output or process.communicate()[0]
        raise AssertionError(
            f"{program.page} (program {program.name}, same line numbers) {ended}:\n{output}"
        )
    return output
