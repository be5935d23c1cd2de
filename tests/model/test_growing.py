"""Memory is reserved before it is touched; limits only rise."""

from __future__ import annotations

import pytest

from tests.model.growing import GrowModel, GrowRules
from tests.model.scenarios import LARGE, broken, holds

SCRIPTS = (("add", "resize 3", "add"), ("add", "resize 2", "add"))


def test_growing_and_resizing_with_kills() -> None:
    scripts = (*SCRIPTS, ("add", "resize 4")) if LARGE else SCRIPTS
    holds(GrowModel("add, grow, resize", *scripts, rules=GrowRules(), crashes=2), 1500)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        (GrowRules(pages_before_mark=False), "the header says 2 pages are there, 1 are"),
        (GrowRules(touch_below_mark=False), "SIGBUS"),
        (GrowRules(high_before_state=False), "is given out twice"),
        (GrowRules(scan_to_high=False), "SIGBUS"),
        (GrowRules(sequences_before_maxlen=False), "the room for its sequences has not"),
        (GrowRules(resize_checks_inside=False), "maxlen"),
        (GrowRules(grow_lock=False), "a monotone word goes back: mark"),
    ],
    ids=[
        "mark before pages",
        "touch before mark",
        "state before high-water mark",
        "scan to max_sequences",
        "maxlen before max_sequences",
        "resize checked outside the lock",
        "no grow lock",
    ],
)
def test_found(rules: GrowRules, problem: str, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    broken(GrowModel(f"BAD: {name}", *SCRIPTS, rules=rules, crashes=1), problem)
