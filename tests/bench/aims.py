"""What shmtable wants to be, beside what was measured."""

from __future__ import annotations

from typing import Any

from tests.bench import tables
from tests.bench.sections import OURS, Records


def aims(results: dict[str, Any]) -> str:
    """A row for each aim that this run says anything about."""
    cases = tables.by_case(results["one"])
    rows = [
        _faster(cases, "sample(256, 1)", 2.0),
        _faster(cases, "sample(64, 32)", 8.0),
        _beside_copy(cases, "sample(256, 128), 64 floats", 1.3),
        _faster(cases, "add 200 steps, arrays", 1.0),
        _faster(cases, "append 1 step", 2.0),
        *_crowd(results["crowd"]),
        *_flat(results["growth"]),
        *_held(results["crowd"]),
    ]
    head = ["measure", "measured", "wanted", "reached"]
    return tables.table(head, [row for row in rows if row])


def _row(measure: str, value: float, wanted: str, reached: bool) -> list[str]:
    return [measure, f"{value:.2f}", wanted, "yes" if reached else "no"]


def _faster(cases: dict[str, Any], case: str, least: float) -> list[str]:
    peers = cases.get(case, {})
    best = tables.fastest(peers)
    value = tables.ratio(best, peers.get(OURS))
    if best is None or value is None:
        return []
    measure = f"{case}: times faster than {best['peer']}"
    return _row(measure, value, f"{least:g} or more", value >= least)


def _beside_copy(cases: dict[str, Any], case: str, most: float) -> list[str]:
    peers = cases.get(case, {})
    value = tables.ratio(peers.get(OURS), peers.get("plain"))
    if value is None:
        return []
    return _row(f"{case}: times a cold copy", value, f"{most:g} or less", value <= most)


def _crowd(records: Records) -> list[list[str]]:
    two = [record for record in records if record.get("writers") == 2]
    ours = next((record for record in two if record["peer"] == OURS), None)
    others = [record for record in two if record["peer"] != OURS]
    rows = []
    for rate, what in (("steps_per_s", "steps in"), ("samples_per_s", "samples out")):
        best = max(others, key=lambda record: float(record[rate]), default=None)
        value = tables.ratio(ours, best, rate)
        if value is not None:
            measure = f"2 writers and a learner, {what}: times the best peer"
            rows.append(_row(measure, value, "more than 1", value > 1))
    return rows


def _flat(records: Records) -> list[list[str]]:
    ours = {
        record["setup"]["transitions"]: record
        for record in records
        if record["peer"] == OURS and tables.shown(record) == "sample(256, 1)"
        if "typical" in record
    }
    if len(ours) < 2:
        return []
    least, most = min(ours), max(ours)
    value = tables.ratio(ours[most], ours[least])
    if value is None:
        return []
    measure = f"sample(256, 1) at {most:,} transitions beside {least:,}"
    return [_row(measure, value, "1.5 or less", value <= 1.5)]


def _held(records: Records) -> list[list[str]]:
    able = [record for record in records if "held_share" in record and record["writers"] <= 4]
    if not able:
        return []
    record = max(able, key=lambda record: int(record["writers"]))
    measure = f"share of the time the lock is held, {record['writers']} writers"
    share = record["held_share"]
    return [_row(measure, share, "less than 0.25", share < 0.25)]
