"""Running a scenario as a test: it must hold, or it must be broken in the expected way.

Both print what was explored (`pytest -rP` shows it; the summary at the end lists every scenario),
and a known-bad variant prints its shortest counter-example, the story of the harm.
"""

from __future__ import annotations

import os

from tests.model.checker import Model, Verdict, explore

# SHMTABLE_MODEL=large: one more process, kill or interrupt in most scenarios, for minutes.
LARGE = os.environ.get("SHMTABLE_MODEL", "") == "large"

EXPLORED: list[Verdict] = []


def holds(model: Model, at_least: int = 1) -> Verdict:
    """Explore all of it and find nothing.

    Args:
        at_least: states that must have been visited, so that a scenario which has lost its
            point (everybody refused at once) does not pass for a proof.
    """
    verdict = explore(model, max_states=20_000_000 if LARGE else 500_000)
    EXPLORED.append(verdict)
    print(verdict)
    assert verdict.holds, str(verdict)
    assert verdict.states >= at_least, f"only {verdict}"
    return verdict


def broken(model: Model, problem: str, *told: str) -> Verdict:
    """Find the harm that a known-bad variant does.

    Args:
        problem: part of what must be found wrong.
        told: parts that must occur in the counter-example's steps.
    """
    verdict = explore(model, max_states=2_000_000)
    EXPLORED.append(verdict)
    print(verdict)
    assert problem in verdict.problem, str(verdict)
    assert verdict.trace, "a counter-example without steps"
    story = "\n".join(verdict.trace)
    for part in told:
        assert part in story, f"{part!r} does not occur in\n{verdict}"
    return verdict
