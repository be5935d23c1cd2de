"""Drives peers, each in a process and an interpreter of its own, by lines over pipes."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from tests.bench.peers.base import Case

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

_START_S = 180.0
_ANSWER_S = 600.0


class Gone(Exception):
    """A peer that is not there, or not any more; the text says why."""


class Driven:
    """One peer's process."""

    def __init__(self, name: str, python: str) -> None:
        """Starts it.

        Args:
            name: a module of ``tests.bench.peers``.
            python: the interpreter in whose environment the peer is installed.

        Raises:
            Gone: it cannot be started there.
        """
        self.name = name
        self._rest = b""
        python = os.path.abspath(python)  # not resolved: a link is what makes the environment
        if not Path(python).exists():
            raise Gone("not installed: its environment is not there")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", "tests.bench.peers.serve", name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # some write a line there for every call
        )
        try:
            answer = self._read(_START_S)
            if "cannot" in answer:
                raise Gone(answer["cannot"])
            self.about = self.ask({"hello": True})
        except Gone:
            self.end()
            raise

    def ask(self, message: dict[str, Any], deadline_s: float = _ANSWER_S) -> dict[str, Any]:
        """The answer to one message.

        Raises:
            Gone: the process has ended or does not answer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Gone(f"ended with {self._process.wait()}") from None
        return self._read(deadline_s)

    def _read(self, deadline_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        until = time.monotonic() + deadline_s
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self._process.kill()
                raise Gone(f"did not answer for {deadline_s:.0f} s")
            data = os.read(pipe, 1 << 16)
            if not data:
                raise Gone(f"ended with {self._process.wait()}")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:  # it went first
            pass
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Company:
    """All peers that could be started.

    Attributes:
        present: name to process, in the order given.
        absent: name to why it is not there.
    """

    def __init__(self, interpreters: dict[str, str]) -> None:
        self.present: dict[str, Driven] = {}
        self.absent: dict[str, str] = {}
        for name, python in interpreters.items():
            try:
                self.present[name] = Driven(name, python)
            except Gone as error:
                self.absent[name] = str(error)

    def __enter__(self) -> Company:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for driven in self.present.values():
            driven.end()

    def ask(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        """One peer's answer; one that is gone is asked no more and answers "cannot"."""
        if name in self.absent:
            return {"cannot": self.absent[name]}
        try:
            return self.present[name].ask(message)
        except Gone as error:
            self.absent[name] = str(error)
            self.present.pop(name).end()
            return {"cannot": str(error)}

    def about(self) -> dict[str, Any]:
        """What each peer is, or why it is not there."""
        there = {name: driven.about for name, driven in self.present.items()}
        return {**there, **{name: {"absent": why} for name, why in self.absent.items()}}


@dataclass
class Measured:
    """What one peer took for one case: the turns' times, or why it has none."""

    peer: str
    case: Case
    turns: list[list[float]] = field(default_factory=list)
    cannot: str = ""

    def figures(self, ahead: bool) -> dict[str, Any]:
        """As written: microseconds a call.

        "typical" is the median over all calls, or, for a peer that works ahead between the calls,
        the median turn's mean; "typical_turns" is that of each turn by itself, and "low" and
        "high" are its quartiles.
        """
        described = {"peer": self.peer, "name": self.case.name, **asdict(self.case)}
        if self.cannot or not self.turns:
            return {**described, "cannot": self.cannot or "not measured"}
        everything = np.concatenate([np.asarray(turn) for turn in self.turns])
        of_turns = [float(np.mean(t) if ahead else np.median(t)) for t in self.turns]
        median, p99 = np.percentile(everything, (50, 99)).tolist()
        low, middle, high = np.percentile(of_turns, (25, 50, 75)).tolist()
        return {
            **described,
            "bytes": self.case.moved_bytes,
            "calls": len(everything),
            "typical": middle if ahead else median,
            "typical_turns": [round(value, 3) for value in of_turns],
            "median": median,
            "p99": p99,
            "low": low,
            "high": high,
        }


def rounds(
    company: Company, wanted: dict[str, list[Case]], turns: int, seconds: float
) -> list[Measured]:
    """Every case of every peer, in many short turns.

    Args:
        company: the peers.
        wanted: peer to its cases.
        turns: how many each gets.
        seconds: about how long a turn is; it has 3 calls at least.
    """
    found = {
        (name, case): Measured(name, case)
        for case in _once(case for cases in wanted.values() for case in cases)
        for name in wanted
        if case in wanted[name]
    }
    calls = {}
    for key, measured in found.items():
        # Made and warmed up before anything is timed; and as many calls as fill a turn.
        answer = _run(company, measured, 5)
        if answer is not None:
            ahead = company.present[measured.peer].about["ahead"]
            calls[key] = int(np.clip(seconds * 1e6 / np.mean(answer), max(ahead, 3), 2000))
    alike: dict[Case, list[tuple[str, Case]]] = {}
    for name, case in calls:
        anyhow = replace(case, setup=replace(case.setup, transitions=0))
        alike.setdefault(anyhow, []).append((name, case))
    groups = list(alike.values())
    random = np.random.default_rng(0)
    for _ in range(turns):
        # What is compared comes right one after the other: a machine that others use is fast for
        # some seconds and slow for some. But nobody always comes behind the same one: some go on
        # fetching after their turn.
        for group in shuffled(groups, random):
            for key in shuffled(group, random):
                times = _run(company, found[key], calls[key])
                if times is not None:
                    found[key].turns.append(times)
    return list(found.values())


def shuffled(items: Sequence[T], random: np.random.Generator) -> list[T]:
    """The same in another order."""
    return [items[place] for place in random.permutation(len(items))]


def _run(company: Company, measured: Measured, calls: int) -> list[float] | None:
    if measured.cannot:
        return None
    answer = company.ask(measured.peer, {"case": asdict(measured.case), "calls": calls})
    measured.cannot = answer.get("cannot", "")
    return answer.get("us")


def _once(cases: Iterable[Case]) -> Iterator[Case]:
    yield from dict.fromkeys(cases)
