"""Waiting for something to change: the bell word, the futex and the wake-up that may not come.

A waiter looks under the lock, remembers the bell word, lets go, and sleeps only if the word is
still the one it saw. Whoever changes something rings before it unlocks and wakes afterwards; it
may be killed in between, which is why no sleep may be without an end.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.checker import Step


@dataclass(frozen=True)
class BellRules:
    """The protocol's answers; each known-bad variant turns one."""

    sleep_ends: bool = True  # at most 0.5 s at a time
    compares: bool = True  # sleeps only while the word is what it saw under the lock
    seen_under_lock: bool = True
    hint_under_lock: bool = True  # "somebody sleeps, wake it", set in the section that looked


class BellState(NamedTuple):
    ready: int = 0  # things to be had
    bell: int = 0
    hint: bool = False
    waiters: tuple[tuple[str, int], ...] = ()  # where each is, and the bell word it saw
    ringer: str = "change"
    left: int = 0  # rings still to come
    wake: bool = False  # the ringer owes a wake-up
    crashes: int = 0


class BellModel:
    """Waiters that each want one thing, and a ringer (and its successor) that provide them."""

    def __init__(self, name: str, rules: BellRules, waiters: int = 2, crashes: int = 1) -> None:
        self.name = name
        self.rules = rules
        self._start = BellState(
            waiters=(("look", 0),) * waiters, left=waiters + crashes, crashes=crashes
        )

    def initial(self) -> Iterable[BellState]:
        yield self._start

    def finished(self, state: Hashable) -> bool:
        assert isinstance(state, BellState)
        return all(at == "served" for at, _ in state.waiters)

    def problem(self, state: Hashable) -> str:
        return ""

    def show(self, before: Hashable, after: Hashable) -> str:
        assert isinstance(before, BellState) and isinstance(after, BellState)
        return f"ready {after.ready}, bell {after.bell}, waiters {[a for a, _ in after.waiters]}"

    def steps(self, state: Hashable) -> Iterator[Step]:
        assert isinstance(state, BellState)
        for me, (at, seen) in enumerate(state.waiters):
            yield from self._waiter(state, me, at, seen)
        yield from self._ringer(state)

    def _waiter(self, state: BellState, me: int, at: str, seen: int) -> Iterator[Step]:
        rules = self.rules
        if at == "look":  # one section
            if state.ready:
                served = state._replace(ready=state.ready - 1)
                yield Step(f"W{me} is served", _put(served, me, "served", 0))
                return
            after = state._replace(hint=True) if rules.hint_under_lock else state
            then = "sleep" if rules.seen_under_lock else "late look"
            yield Step(f"W{me} finds nothing", _put(after, me, then, state.bell))
        elif at == "late look":  # known-bad: the word is read after the lock is given back
            yield Step(f"W{me} reads the bell", _put(state, me, "sleep", state.bell))
        elif at == "sleep":
            after = state if rules.hint_under_lock else state._replace(hint=True)
            if state.bell != seen and rules.compares:
                yield Step(f"W{me} sees the bell rung", _put(after, me, "look", 0))
            else:
                yield Step(f"W{me} falls asleep", _put(after, me, "asleep", seen))
        elif at == "asleep" and rules.sleep_ends and (state.ready or state.bell != seen):
            # Waking for nothing and sleeping again is left out: it only repeats states.
            yield Step(f"W{me} wakes up by itself", _put(state, me, "look", 0))

    def _ringer(self, state: BellState) -> Iterator[Step]:
        if state.ringer == "change" and state.left:
            rung = state._replace(
                ready=state.ready + 1,
                bell=state.bell + 1,
                wake=state.hint,
                hint=False,
                left=state.left - 1,
                ringer="wake",
            )
            yield Step("R changes something, rings, unlocks", rung)
        elif state.ringer == "wake":
            woken = tuple(
                ("look", 0) if at == "asleep" and state.wake else (at, seen)
                for at, seen in state.waiters
            )
            done = state._replace(waiters=woken, wake=False, ringer="change")
            yield Step(f"R wakes {'all' if state.wake else 'nobody'}", done)
            if state.crashes:
                killed = state._replace(wake=False, ringer="change", crashes=state.crashes - 1)
                yield Step("R is KILLED before it wakes; another takes over", killed, fault=True)


def _put(state: BellState, me: int, at: str, seen: int) -> BellState:
    return state._replace(waiters=(*state.waiters[:me], (at, seen), *state.waiters[me + 1 :]))
