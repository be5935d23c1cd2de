"""Says at the end of a test run how much the model checker has explored."""

from __future__ import annotations

from typing import Any

from tests.model.scenarios import EXPLORED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each scenario explored in this process (none under pytest-xdist)."""
    if not EXPLORED:
        return
    terminalreporter.section("protocol models explored")
    for verdict in EXPLORED:
        found = "holds" if verdict.holds else "broken, as it must be"
        terminalreporter.write_line(f"{verdict.states:>9} states  {found:22} {verdict.name}")
    total = sum(verdict.states for verdict in EXPLORED)
    terminalreporter.write_line(f"{total:>9} states in {len(EXPLORED)} scenarios")
