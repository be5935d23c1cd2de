"""Watching a table without taking part in it."""

from __future__ import annotations

import copy
from typing import Any

from shmtable.held import HeldTable, outside_of
from shmtable.protocols.census import open_outside
from shmtable.types import LiveSequences, Stats


class Onlooker:
    """Sees a table of this user from outside, as ``shmtable top`` does.

    It reads and never writes, takes no lock, is not listed among the table's processes, and needs
    no classes of yours. So it may be killed, or the table may go away, at any time, and neither
    notices. What it sees are copies, each number right by itself; between two of them something
    may have happened.

    Args:
        name: as given at creation; of a table without one, PID:DESCRIPTOR as ``shmtable ls``
            shows it.
        directory: as given at creation.

    Raises:
        SpecError: the name cannot be one.
        ArenaNotFoundError: no such table.
        ArenaPermissionError: it belongs to somebody else.
        ArenaVersionError: made by an incompatible version.
        ArenaDamagedError: the file is no sound table.
    """

    def __init__(self, name: str, *, directory: str | None = None) -> None:
        self.name = name
        self._outside = open_outside(name, directory)

    @classmethod
    def of(cls, table: HeldTable) -> Onlooker:
        """Look at a table that this process has open, whether it has a name or not.

        Raises:
            ClosedError: it is closed.
        """
        made = cls.__new__(cls)
        made.name, made._outside = outside_of(table)
        return made

    def description(self) -> dict[str, Any]:
        """How the table was declared, in types that JSON knows; made anew by each call.

        Returns:
            Under ``columns`` each column's name, kind, dtype and shape, under ``sampler`` and
            ``ejector`` their type and config, under ``options`` what else was chosen.
        """
        spec = self._outside.description
        parts = {role: _without_states(spec[role]) for role in ("sampler", "ejector")}
        columns = {key: spec["schema"][key] for key in ("length_key", "columns")}
        return copy.deepcopy({**columns, **parts, "options": spec["options"]})

    def sequences(self) -> LiveSequences:
        """The live sequences, one by one; O(sequences), and transitions if they have priorities.

        Raises:
            ArenaDamagedError: the numbers are no table's.
        """
        return self._outside.sequences()

    def stats(self) -> Stats:
        """See ``Stats``.

        Raises:
            ArenaDamagedError: the numbers are no table's.
        """
        return self._outside.stats()

    def is_gone(self) -> bool:
        """Whether nobody is left who has the table open, as far as its own notes tell."""
        stats = self._outside.stats()
        return not any(process.alive is not False for process in stats.processes)

    def is_half_changed(self) -> bool:
        """Whether a change is under way; if that stays so, its process has died in the middle, and
        the next call of any process repairs it.
        """
        return self._outside.is_half_changed()

    def close(self) -> None:
        """Let go of the table. Safe to call twice."""
        self._outside.close()

    def __enter__(self) -> Onlooker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _without_states(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: spec[key] for key in ("type", "config")}
