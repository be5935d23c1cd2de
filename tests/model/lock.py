"""The robust lock, its dirty flag, and Ctrl-C between any two instructions.

The critical section is two words that must stay equal, so that whoever enters a half-changed
table sees it. A kill makes the mutex "owner died"; a Ctrl-C leaves through the `finally` blocks,
wherever it strikes. Python delivers it between bytecodes, so never inside a C call: each step
here is one call or one store, and an interrupt may come before each.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.checker import Step

NOBODY = -1


@dataclass(frozen=True)
class LockRules:
    """The protocol's answers; each known-bad variant turns one."""

    lock_inside_try: bool = True
    unlock_twice: bool = True  # finally: try: unlock() finally: unlock()
    consistent_first: bool = True  # before the rebuild, not after
    settles: bool = True  # on the way out too: an interrupt may come before `consistent_first`
    dirty_decides: bool = True  # not what the lock call returned
    adopt_orphan: bool = True  # EDEADLK outside a section: ours, left by an interrupt
    comes_back: bool = False  # a caller that left the lock behind calls again some time


class Caller(NamedTuple):
    at: str = "outside"
    calls: int = 1  # still to make
    told_dead: bool = False  # its lock call returned EOWNERDEAD


class LockState(NamedTuple):
    holder: int = NOBODY
    owner_died: bool = False  # the mutex wants pthread_mutex_consistent
    lost: bool = False  # ENOTRECOVERABLE, for ever
    dirty: bool = False
    first: int = 0
    second: int = 0
    callers: tuple[Caller, ...] = ()
    dead: int = 0
    crashes: int = 0
    interrupts: int = 0


# Where a caller is: what it does next.
_BODY = {"set dirty": "first", "first": "second", "second": "clear dirty", "clear dirty": "unlock"}


class LockModel:
    """``callers`` threads that each enter the section ``calls`` times."""

    def __init__(
        self,
        name: str,
        rules: LockRules,
        callers: int = 2,
        calls: int = 2,
        crashes: int = 1,
        interrupts: int = 1,
    ) -> None:
        self.name = name
        self.rules = rules
        self._start = LockState(
            callers=(Caller(calls=calls),) * callers, crashes=crashes, interrupts=interrupts
        )

    def initial(self) -> Iterable[LockState]:
        yield self._start

    def finished(self, state: Hashable) -> bool:
        assert isinstance(state, LockState)
        return all(
            state.dead >> me & 1 or (caller.at == "outside" and not caller.calls)
            for me, caller in enumerate(state.callers)
        )

    def problem(self, state: Hashable) -> str:
        assert isinstance(state, LockState)
        return "the mutex can never be taken again (ENOTRECOVERABLE)" if state.lost else ""

    def show(self, before: Hashable, after: Hashable) -> str:
        assert isinstance(before, LockState) and isinstance(after, LockState)
        told = [
            f"{name} = {new}"
            for name, old, new in zip(before._fields[:6], before[:6], after[:6], strict=True)
            if old != new
        ]
        return ", ".join(told)

    def steps(self, state: Hashable) -> Iterator[Step]:
        assert isinstance(state, LockState)
        for me, caller in enumerate(state.callers):
            if state.dead >> me & 1:
                continue
            step = self._next(state, me, caller)
            if step is None:
                continue
            yield step
            if state.crashes:
                yield Step(f"T{me} is KILLED", self._killed(state, me), fault=True)
            if state.interrupts and caller.at not in ("outside", "lock"):
                yield Step(f"T{me} gets CTRL-C", self._interrupted(state, me, caller), fault=True)

    def _next(self, state: LockState, me: int, caller: Caller) -> Step | None:
        at = caller.at
        if at == "outside":
            owed = self.rules.comes_back and state.holder == me
            if not caller.calls and not owed:
                return None
            calls = max(caller.calls - 1, 0)
            return Step(f"T{me} calls", _move(state, me, Caller("lock", calls)))
        if at == "lock":
            return self._lock(state, me, caller)
        if at in ("unlock", "unlock again"):
            return Step(f"T{me} unlocks", self._unlock(state, me, caller))
        return self._inside(state, me, caller)

    def _lock(self, state: LockState, me: int, caller: Caller) -> Step | None:
        if state.holder == me:
            if not self.rules.adopt_orphan:
                return None
            adopted = _move(state._replace(dirty=True), me, caller._replace(at="enter"))
            return Step(f"T{me} lock: EDEADLK, adopts its orphan", adopted)
        if state.holder != NOBODY:
            return None
        told = state.owner_died
        after = _move(state._replace(holder=me), me, caller._replace(at="locked", told_dead=told))
        return Step(f"T{me} lock: {'EOWNERDEAD' if told else 'taken'}", after)

    def _inside(self, state: LockState, me: int, caller: Caller) -> Step:
        """One step of the section; 'locked' is the instant between the lock call and `try`."""
        at, rules = caller.at, self.rules
        if at == "locked":
            then = "consistent" if state.owner_died and rules.consistent_first else "enter"
            return Step(f"T{me} enters the section", _move(state, me, caller._replace(at=then)))
        if at == "consistent":
            then = "enter" if rules.consistent_first else "set dirty"
            after = _move(state._replace(owner_died=False), me, caller._replace(at=then))
            return Step(f"T{me} makes the mutex consistent", after)
        if at == "enter":
            repair = state.dirty if rules.dirty_decides else caller.told_dead
            late = state.owner_died and not rules.consistent_first
            then = "rebuild" if repair else "consistent" if late else "set dirty"
            return Step(f"T{me} looks at dirty", _move(state, me, caller._replace(at=then)))
        if at == "rebuild":
            then = "consistent" if state.owner_died else "set dirty"
            after = state._replace(second=state.first, dirty=False)
            return Step(f"T{me} rebuilds", _move(after, me, caller._replace(at=then)))
        if at == "set dirty" and state.first != state.second:
            return Step(f"T{me} begins", state, "enters a half-changed table that nobody repaired")
        changed = {
            "set dirty": state._replace(dirty=True),
            "first": state._replace(first=1 - state.first),
            "second": state._replace(second=1 - state.second),
            "clear dirty": state._replace(dirty=False),
        }[at]
        return Step(f"T{me} stores: {at}", _move(changed, me, caller._replace(at=_BODY[at])))

    def _unlock(self, state: LockState, me: int, caller: Caller) -> LockState:
        """Harmless when not held (EPERM); fatal to the mutex while it is inconsistent."""
        if state.holder != me:
            return _move(state, me, Caller(calls=caller.calls))
        if state.owner_died and self.rules.settles:
            return state._replace(owner_died=False)  # and unlocks in its next step
        after = state._replace(holder=NOBODY, lost=state.owner_died, owner_died=False)
        return _move(after, me, Caller(calls=caller.calls))

    def _killed(self, state: LockState, me: int) -> LockState:
        after = _move(state, me, Caller(calls=0))._replace(
            dead=state.dead | 1 << me, crashes=state.crashes - 1
        )
        if state.holder == me:
            after = after._replace(holder=NOBODY, owner_died=True)
        return after

    def _interrupted(self, state: LockState, me: int, caller: Caller) -> LockState:
        rules, at = self.rules, caller.at
        if at == "locked" and not rules.lock_inside_try:
            then = "outside"
        elif at == "unlock":
            then = "unlock again" if rules.unlock_twice else "outside"
        elif at == "unlock again":
            then = "outside"
        else:
            then = "unlock"
        left = state._replace(interrupts=state.interrupts - 1)
        return _move(left, me, caller._replace(at=then))


def _move(state: LockState, me: int, caller: Caller) -> LockState:
    callers = (*state.callers[:me], caller, *state.callers[me + 1 :])
    return state._replace(callers=callers)
