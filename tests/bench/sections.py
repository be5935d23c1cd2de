"""What is measured beside the peers, part by part; each gives a list of plain records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tests.bench.driver import Company, rounds, shuffled
from tests.bench.peers.base import Case, Setup

Records = list[dict[str, Any]]
OURS = "shmtable"
PEERS = ("cpprb", "torchrl", "reverb")
_MOST_IN_REVERB = 20_000


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        turns: of each case of one process.
        seconds: of such a turn, about.
        crowd_turns, crowd_seconds: likewise, of many processes.
        writers: how many of them, each number in turn.
        sizes: transitions of the tables that grow.
        transitions: in all other tables.
    """

    turns: int
    seconds: float
    crowd_turns: int
    crowd_seconds: float
    writers: tuple[int, ...]
    sizes: tuple[int, ...]
    transitions: int = Setup.transitions


FULL = Effort(20, 0.05, 10, 0.75, (1, 2, 4, 8), (10_000, 100_000, 1_000_000))
QUICK = Effort(5, 0.01, 2, 0.5, (2,), (10_000, 100_000), 40_000)
# Nothing that a figure could be read from: whether all of it runs.
LEAST = Effort(2, 0.001, 1, 0.1, (1,), (1_000, 2_000), 2_000)


def _everybody(company: Company, cases: list[Case]) -> dict[str, list[Case]]:
    return {name: cases for name in company.present}


def _figures(company: Company, wanted: dict[str, list[Case]], effort: Effort) -> Records:
    measured = rounds(company, wanted, effort.turns, effort.seconds)
    about = company.about()
    records = [each.figures(bool(about[each.peer].get("ahead"))) for each in measured]
    for name in list(company.present):
        company.ask(name, {"forget": True})
    return records


def one_process(company: Company, effort: Effort) -> Records:
    """Sampling, adding and priorities."""
    size = effort.transitions
    plain = Setup(transitions=size)
    weighted = Setup(transitions=size, priorities=True)
    # Short sequences would take the place of those that windows are drawn from.
    added = Setup(transitions=size, use="adding")
    cases = [
        Case(plain, "sample", 256),
        Case(plain, "sample", 64, 32),
        Case(plain, "sample", 32, 128),
        Case(Setup("floats", size), "sample", 256, 128),
        Case(Setup("pixels", min(size, 10_000)), "sample", 32),
        Case(Setup("twenty", size), "sample", 256),
        Case(weighted, "sample", 256),
        Case(weighted, "update", 256),
        Case(added, "append"),
        *(Case(added, "add", 1, steps) for steps in (1, 20, 200, 1000)),
        *(Case(added, "add", 1, 200, form) for form in ("tensors", "lists")),
    ]
    wanted = _everybody(company, cases)
    if "reverb" in wanted:
        wanted["reverb"] = [_smaller(case) for case in cases]
    return _figures(company, wanted, effort)


def _smaller(case: Case) -> Case:
    """Reverb takes minutes to fill what others fill in a second, and minds the size little."""
    size = min(case.setup.transitions, _MOST_IN_REVERB)
    return replace(case, setup=replace(case.setup, transitions=size))


def growth(company: Company, effort: Effort) -> Records:
    """The same calls on ever larger tables."""
    cases = [
        Case(Setup(transitions=size, priorities=priorities), op, *shape)
        for size in effort.sizes
        for priorities in (False, True)
        for op, *shape in (("sample", 256), ("add", 1, 200))
    ]
    wanted = _everybody(company, cases)
    if "plain" in wanted:  # a copy knows nothing of priorities
        wanted["plain"] = [case for case in cases if not case.setup.priorities]
    return _figures(company, wanted, effort)


_SAMPLERS = ("Coverage", "Fifo", "Lifo", "WithoutReplacement", "EndAligned", "Mixture")
_EJECTORS = ("Lifo", "Uniform", "Coverage", "LowestPriority")
_SHORT = (10, 1)  # steps: as many sequences as a tenth of the transitions, or as all


def strategies(company: Company, effort: Effort) -> Records:
    """Ours only: every sampler and ejector, and short sequences, on ever larger tables."""
    cases = []
    for size in effort.sizes[:3]:
        tables = [Setup(transitions=size, sampler=name) for name in _SAMPLERS]
        cases += [Case(setup, "sample", 256) for setup in tables]
        for name in _EJECTORS:
            by_priority = name == "LowestPriority"
            cases.append(Case(Setup("cheetah", size, by_priority, ejector=name), "add", 1, 200))
        for steps in _SHORT:
            short = Setup(transitions=size, steps=steps)
            cases += [Case(short, "sample", 256), Case(short, "add", 1, steps)]
    return _figures(company, {OURS: cases}, effort)


def crowds(company: Company, effort: Effort) -> Records:
    """Writers flat out and a learner; a last turn of each counts how the lock is used."""
    turns: dict[tuple[str, int], Records] = {}
    watched: dict[tuple[str, int], dict[str, Any]] = {}
    cannot: dict[str, str] = {}
    wanted = {"seconds": effort.crowd_seconds, "transitions": effort.transitions}
    random = np.random.default_rng(0)
    for turn in range(effort.crowd_turns + 1):
        for writers in effort.writers:
            for name in shuffled(list(company.present), random):
                if name in cannot or name == "plain":
                    continue
                last = turn == effort.crowd_turns
                if last and name != OURS:
                    continue
                asked = {"crowd": {**wanted, "writers": writers, "watched": last}}
                answer = company.ask(name, asked)
                if "cannot" in answer:
                    cannot[name] = answer["cannot"]
                elif last:
                    watched[name, writers] = answer
                else:
                    turns.setdefault((name, writers), []).append(answer)
    for name in list(company.present):
        company.ask(name, {"forget": True})
    records = [_crowd(*key, answers, watched.get(key)) for key, answers in turns.items()]
    return records + [{"peer": name, "cannot": why} for name, why in cannot.items()]


def _crowd(
    name: str, writers: int, answers: Records, watched: dict[str, Any] | None
) -> dict[str, Any]:
    rates = {
        f"{what}_per_s": [answer[what] / answer["seconds"] for answer in answers]
        for what in ("steps", "samples")
    }
    record: dict[str, Any] = {"peer": name, "writers": writers, "remark": answers[0]["remark"]}
    for rate, values in rates.items():
        low, middle, high = np.percentile(values, (25, 50, 75)).tolist()
        record.update({rate: middle, f"{rate}_low": low, f"{rate}_high": high})
        record[f"{rate}_turns"] = [round(value, 1) for value in values]
    times = np.concatenate([np.asarray(answer["us"]) for answer in answers])
    record["median"], record["p99"] = np.percentile(times, (50, 99)).tolist()
    if watched:
        whole_ns = watched["seconds"] * 1e9
        record["held_share"] = watched["held_ns"] / whole_ns
        record["waiting_share"] = watched["waiting_ns"] / whole_ns / (writers + 1)
    return record


def memory(company: Company, effort: Effort, layouts: tuple[str, ...]) -> Records:
    """Bytes a transition takes, beside its content."""
    records = []
    for layout in layouts:
        most = min(effort.transitions, 10_000) if layout == "pixels" else effort.transitions
        stored = Setup(layout).columns.step_bytes()
        for name in list(company.present):
            if name != "plain":
                size = min(most, _MOST_IN_REVERB) if name == "reverb" else most
                setup = Setup(layout, size)
                answer = company.ask(name, {"memory": asdict(setup)})
                record = {"peer": name, "layout": layout, "transitions": size, "sampled": stored}
                records.append(record | _per(answer, size))
    return records


def _per(answer: dict[str, Any], transitions: int) -> dict[str, Any]:
    if "cannot" in answer:
        return {"cannot": answer["cannot"]}
    return {"bytes_per_transition": answer["bytes"] / transitions}


def attached(company: Company, effort: Effort) -> Records:
    """What a process takes for itself by having a shared table."""
    setup = asdict(Setup(transitions=min(effort.transitions, 20_000)))
    return [
        {"peer": name, **company.ask(name, {"attached": setup})}
        for name in list(company.present)
        if name != "plain"
    ]


def split(company: Company, effort: Effort) -> Records:
    """Where the time of one sample goes, ours only."""
    calls = max(int(effort.turns * effort.seconds * 2000), 10)
    records = []
    for count, length in ((256, 1), (64, 32), (32, 128)):
        asked = {"split": {"count": count, "length": length, "calls": calls}}
        records.append({"name": f"sample({count}, {length})", **company.ask(OURS, asked)})
    return records
