"""A page about a table, with pictures: ``shmtable report``, or ``write_report`` from a program."""

from __future__ import annotations

from shmtable.report.write import write_report

__all__ = ["write_report"]
