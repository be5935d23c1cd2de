"""The records as Markdown: ratios first, and the times they come from beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.sections import OURS, PEERS, Records

_NAMES = {OURS: OURS, "cpprb": "cpprb", "torchrl": "TorchRL", "reverb": "Reverb", "plain": "copy"}
_LAYOUTS = {
    "cheetah": "",
    "pixels": ", 84×84×4 bytes",
    "twenty": ", 20 columns",
    "floats": ", 64 floats",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first column to the left."""
    marks = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *rows)) + "\n"


def shown(record: dict[str, Any]) -> str:
    """The name of a case with what is special about its table."""
    setup = record["setup"]
    priorities = ", by priority" if setup["priorities"] and record["op"] != "update" else ""
    steps = "" if setup["steps"] == 200 else f", sequences of {setup['steps']}"
    parts = [setup["sampler"], setup["ejector"]]
    kinds = "".join(f", {name}" for name in parts if name)
    return record["name"] + _LAYOUTS[setup["layout"]] + priorities + steps + kinds


def by_case(records: Records) -> dict[str, dict[str, dict[str, Any]]]:
    """Case to peer to record."""
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        cases.setdefault(shown(record), {})[record["peer"]] = record
    return cases


def fastest(peers: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The record of the fastest peer that can do it."""
    able = [peers[name] for name in PEERS if "typical" in peers.get(name, {})]
    return min(able, key=lambda record: float(record["typical"]), default=None)


def ratio(
    above: dict[str, Any] | None, below: dict[str, Any] | None, what: str = "typical"
) -> float | None:
    """The median turn's ratio: a turn of both is of about one moment, and so is its ratio."""
    turns = [record.get(f"{what}_turns", []) for record in (above or {}, below or {})]
    ratios = [one / other for one, other in zip(*turns, strict=False) if other]
    return float(np.median(ratios)) if ratios else None


def one_process(records: Records) -> str:
    """Ours beside the fastest peer and beside the copy, then everybody's times."""
    rows, times = [], []
    for case, peers in by_case(records).items():
        ours, best, copy = peers.get(OURS, {}), fastest(peers), peers.get("plain", {})
        rows.append(
            [
                case,
                _times(ratio(best, ours)),
                _NAMES[best["peer"]] if best else "none can",
                _times(ratio(ours, copy)),
                _number(ours.get("typical")),
                _number(best["typical"]) if best else "",
                _number(copy.get("typical")),
                f"{ours['bytes'] / 1024:.0f}" if ours.get("bytes") else "",
            ]
        )
        times.append([case, *(_cell(peers.get(name)) for name in (OURS, *PEERS, "plain"))])
    head = ["call", "times faster than the fastest peer", "which", "times a plain copy"]
    first = table([*head, "ours µs", "peer µs", "copy µs", "KiB"], rows)
    second = table(["call", OURS, *(_NAMES[name] for name in (*PEERS, "plain"))], times)
    return (
        f"{first}\nMedian, p99, and in brackets the quartiles of the turns' medians, "
        f"in microseconds:\n\n{second}"
    )


def crowds(records: Records) -> str:
    """What goes in and out, and how the lock is used."""
    rows = []
    able = [record for record in records if "cannot" not in record]
    for ours in [record for record in able if record["peer"] == OURS]:
        others = [r for r in able if r["writers"] == ours["writers"] and r["peer"] != OURS]
        for rate, what in (("steps_per_s", "steps in"), ("samples_per_s", "samples out")):
            best = max(others, key=lambda record: float(record[rate]), default=None)
            rows.append(
                [
                    f"{ours['writers']} writers, {what}",
                    _times(ratio(ours, best, rate)),
                    _NAMES[best["peer"]] if best else "none can",
                ]
            )
    text = table(["", "times the best peer's rate", "which"], rows)
    details = [
        [
            f"{record['writers']}, {_NAMES[record['peer']]}",
            f"{record['steps_per_s']:,.0f}",
            f"{record['samples_per_s']:,.0f}",
            f"{record['samples_per_s_low']:,.0f} to {record['samples_per_s_high']:,.0f}",
            _number(record["median"]),
            _number(record["p99"]),
            _percent(record.get("held_share")),
            _percent(record.get("waiting_share")),
        ]
        for record in sorted(able, key=lambda record: int(record["writers"]))
    ]
    head = ["writers", "steps/s in", "samples/s out", "quartiles", "sample median µs", "p99 µs"]
    text += "\n" + table([*head, "lock held", "waiting for it"], details)
    remarks = {record["peer"]: record["remark"] for record in able if record.get("remark")}
    remarks.update({r["peer"]: r["cannot"] for r in records if "cannot" in r})
    return text + _notes(remarks)


def growth(records: Records) -> str:
    """Each size beside the smallest."""
    sizes = sorted({record["setup"]["transitions"] for record in records})
    rows = []
    for case, peer in dict.fromkeys((shown(r), r["peer"]) for r in records):
        mine = {
            r["setup"]["transitions"]: r
            for r in records
            if (shown(r), r["peer"]) == (case, peer) and "typical" in r
        }
        if sizes[0] in mine:
            least = mine[sizes[0]]
            ratios = [_times(ratio(mine.get(size, {}), least)) for size in sizes[1:]]
            times = [_number(mine.get(size, {}).get("typical")) for size in sizes]
            rows.append([f"{case}: {_NAMES[peer]}", *ratios, *times])
    head = [f"{size:,} / {sizes[0]:,}" for size in sizes[1:]]
    return table(["call", *head, *(f"µs at {size:,}" for size in sizes)], rows)


def memory(records: Records, attached: Records) -> str:
    """Bytes of a transition, and of a process."""
    rows = [
        [
            f"{record['layout']}: {_NAMES[record['peer']]}",
            f"{record['bytes_per_transition'] / record['sampled']:.2f}",
            f"{record['bytes_per_transition']:,.0f}",
            f"{record['sampled']:,}",
        ]
        for record in records
        if "bytes_per_transition" in record
    ]
    head = ["table", "times what is sampled", "bytes a transition", "sampled bytes"]
    text = table(head, rows)
    more = [
        [_NAMES[record["peer"]], f"{record['bytes'] / 1024:,.0f}"]
        for record in attached
        if "bytes" in record
    ]
    return f"{text}\n{table(['one more process', 'KiB of its own'], more)}" if more else text


def split(records: Records) -> str:
    """Shares of one sample."""
    parts = list(dict.fromkeys(part for record in records for part in record.get("us", {})))
    rows = []
    for record in records:
        times = record.get("us")
        if times:
            whole = sum(times.values())
            shares = [f"{100 * times.get(part, 0) / whole:.0f} %" for part in parts]
            rows.append([record["name"], *shares, _number(whole)])
    return table(["call", *parts, "µs, timed"], rows)


def unable(records: Records) -> str:
    """What was left out and why."""
    left: dict[str, list[str]] = {}
    for record in records:
        if "cannot" in record and record["peer"] != "plain":
            name = _NAMES[record["peer"]]
            left.setdefault(f"{name}: {record['cannot']}", []).append(shown(record))
    lines = [f"- {why}: {', '.join(dict.fromkeys(cases))}." for why, cases in left.items()]
    return "\n".join(lines) + "\n" if lines else "Nothing.\n"


def _notes(remarks: dict[str, str]) -> str:
    lines = [f"- {_NAMES[name]}: {text}." for name, text in remarks.items()]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _cell(record: dict[str, Any] | None) -> str:
    if not record or "typical" not in record:
        return ""
    middle = _number(record["typical"])
    return (
        f"{middle}, {_number(record['p99'])} [{_number(record['low'])}–{_number(record['high'])}]"
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
