"""Memory that is reserved before it is touched, and limits that only rise.

One kind of thing stands for all: a slot, with one row, lies on one page. ``pages`` is what the
system has really given (touching beyond it is a SIGBUS), ``mark`` what the header says it has
given, ``high`` where scans stop. Two locks: the grow lock for reserving, and the table's, taken
inside it. The table's sections are cut off after any store; the grow lock has nothing to repair.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.checker import Step

FREE, WRITING, LIVE = "-", "w", "L"
NOBODY = -1
SIGBUS = "SIGBUS: touches a page that was never reserved"


@dataclass(frozen=True)
class GrowRules:
    """The protocol's answers; each known-bad variant turns one."""

    pages_before_mark: bool = True
    touch_below_mark: bool = True  # reserve looks at the mark before it takes a slot
    high_before_state: bool = True
    scan_to_high: bool = True  # rebuild stops there, not at max_sequences
    sequences_before_maxlen: bool = True
    resize_checks_inside: bool = True  # that the limit rises: under the lock
    grow_lock: bool = True


class Actor(NamedTuple):
    call: int = 0
    at: str = "begin"
    slot: int = 0
    seen: int = 0  # a word read earlier


class GrowState(NamedTuple):
    pages: int = 1
    mark: int = 1
    high: int = 0
    slots: tuple[str, ...] = ()
    owners: tuple[int, ...] = ()
    maxlen: int = 1
    max_sequences: int = 1
    dirty: bool = False
    grower: int = NOBODY  # holder of the grow lock
    actors: tuple[Actor, ...] = ()
    dead: int = 0
    crashes: int = 0
    asked: int = 1  # ghost: the largest limit whose resize has returned


Change = dict[str, object]


class GrowModel:
    """``scripts``: for each process its calls, "add" or "resize N"."""

    def __init__(
        self, name: str, *scripts: tuple[str, ...], rules: GrowRules, crashes: int = 1
    ) -> None:
        self.name = name
        self.scripts = scripts
        self.rules = rules
        self._crashes = crashes

    def initial(self) -> Iterable[GrowState]:
        yield GrowState(
            slots=(FREE,) * 4,
            owners=(NOBODY,) * 4,
            actors=(Actor(),) * len(self.scripts),
            crashes=self._crashes,
        )

    def finished(self, state: Hashable) -> bool:
        assert isinstance(state, GrowState)
        return all(
            state.dead >> me & 1 or actor.call == len(self.scripts[me])
            for me, actor in enumerate(state.actors)
        )

    def problem(self, state: Hashable) -> str:
        assert isinstance(state, GrowState)
        if state.mark > state.pages:
            return f"the header says {state.mark} pages are there, {state.pages} are"
        if state.maxlen < state.asked:
            return f"maxlen is {state.maxlen} after a resize to {state.asked} returned"
        if state.maxlen > state.max_sequences:
            return "maxlen has been raised, the room for its sequences has not"
        return ""

    def show(self, before: Hashable, after: Hashable) -> str:
        assert isinstance(before, GrowState) and isinstance(after, GrowState)
        told = [
            f"{name} = {''.join(after.slots) if name == 'slots' else new}"
            for name, old, new in zip(before._fields[:8], before[:8], after[:8], strict=True)
            if old != new and name != "owners"
        ]
        return ", ".join(told)

    def steps(self, state: Hashable) -> Iterator[Step]:
        assert isinstance(state, GrowState)
        for me, actor in enumerate(state.actors):
            if state.dead >> me & 1 or actor.call == len(self.scripts[me]):
                continue
            what = self.scripts[me][actor.call]
            yield from (
                self._resize(state, me, actor, int(what.split()[1]))
                if (what.startswith("resize"))
                else self._add(state, me, actor)
            )
            if state.crashes:
                yield Step(f"P{me} is KILLED", _kill(state, me), fault=True)

    # A section of the table's lock: its stores, cut off after any of them.

    def _section(
        self, state: GrowState, me: int, label: str, after: Actor, *stores: Change
    ) -> Iterator[Step]:
        if state.dirty:
            yield from self._rebuild(state, me)
            return
        for index, store in enumerate(stores):
            state = state._replace(**store, dirty=True)  # type: ignore[arg-type]
            if state.crashes and index < len(stores) - 1:
                cut = f"{label}, after {index + 1} of {len(stores)} stores is KILLED"
                yield Step(cut, _kill(state, me), fault=True)
        yield Step(label, _put(state._replace(dirty=False), me, after))

    def _rebuild(self, state: GrowState, me: int) -> Iterator[Step]:
        """Free what dead writers left; reads every slot up to where scans stop."""
        end = state.high if self.rules.scan_to_high else state.max_sequences
        if end > state.pages:
            yield Step(f"P{me} rebuilds", state, SIGBUS)
            return
        slots, owners = list(state.slots), list(state.owners)
        for slot in range(end):
            if slots[slot] == WRITING and state.dead >> owners[slot] & 1:
                slots[slot], owners[slot] = FREE, NOBODY
        fixed = state._replace(slots=tuple(slots), owners=tuple(owners), dirty=False)
        yield Step(f"P{me} finds dirty, rebuilds", fixed)

    # Add.

    def _add(self, state: GrowState, me: int, actor: Actor) -> Iterator[Step]:
        if actor.at == "begin":
            yield from self._reserve(state, me, actor)
        elif actor.at == "grow":
            if state.grower == NOBODY or not self.rules.grow_lock:
                after = _put(state, me, actor._replace(at="pages", seen=state.mark))
                if self.rules.grow_lock:
                    after = after._replace(grower=me)
                yield Step(f"P{me} takes the grow lock", after)
        elif actor.at in ("pages", "mark"):
            yield from self._grow(state, me, actor)
        elif actor.at == "copy":
            wrong = SIGBUS if actor.slot >= state.pages else ""
            after = _put(state, me, actor._replace(at="commit"))
            yield Step(f"P{me} writes page {actor.slot}", after, wrong)
        else:
            slots = _with(state.slots, actor.slot, LIVE)
            done = Actor(actor.call + 1)
            yield from self._section(state, me, f"P{me} commits", done, {"slots": slots})

    def _reserve(self, state: GrowState, me: int, actor: Actor) -> Iterator[Step]:
        below = [slot for slot in range(state.high) if state.slots[slot] == FREE]
        slot = below[0] if below else state.high
        if not state.dirty:
            if slot >= state.max_sequences:
                yield Step(f"P{me} is refused, full", _put(state, me, Actor(actor.call + 1)))
                return
            if slot >= state.mark and self.rules.touch_below_mark:
                yield Step(f"P{me} must grow", _put(state, me, actor._replace(at="grow")))
                return
            if state.slots[slot] != FREE and state.owners[slot] != NOBODY:
                label = f"P{me} reserves slot {slot}"
                yield Step(label, state, f"slot {slot} is given out twice")
                return
        raised: Change = {"high": max(state.high, slot + 1)}
        taken: Change = {
            "slots": _with(state.slots, slot, WRITING) if slot < 4 else state.slots,
            "owners": _with(state.owners, slot, me) if slot < 4 else state.owners,
        }
        stores = (raised, taken) if self.rules.high_before_state else (taken, raised)
        after = actor._replace(at="copy", slot=slot)
        yield from self._section(state, me, f"P{me} reserves slot {slot}", after, *stores)

    def _grow(self, state: GrowState, me: int, actor: Actor) -> Iterator[Step]:
        wanted = actor.seen + 1
        order = ("pages", "mark") if self.rules.pages_before_mark else ("mark", "pages")
        first = actor.at == "pages"
        what = order[0] if first else order[1]
        then = actor._replace(at="mark" if first else "begin")
        if what == "pages":
            grown = _put(state._replace(pages=max(state.pages, wanted)), me, then)
            yield Step(f"P{me} reserves up to page {wanted}", self._let_go(grown, me, first))
            return
        for step in self._section(state, me, f"P{me} stores the mark", then, {"mark": wanted}):
            after = step.state
            assert isinstance(after, GrowState)
            if wanted < state.mark and after.mark < state.mark:
                yield Step(step.label, state, "a monotone word goes back: mark")
                return
            rebuilt = state.dirty
            yield (
                step if rebuilt or step.fault else Step(step.label, self._let_go(after, me, first))
            )

    def _let_go(self, state: GrowState, me: int, first: bool) -> GrowState:
        return state if first or state.grower != me else state._replace(grower=NOBODY)

    # Resize.

    def _resize(self, state: GrowState, me: int, actor: Actor, wanted: int) -> Iterator[Step]:
        done = Actor(actor.call + 1)
        if actor.at == "begin" and not self.rules.resize_checks_inside:
            looked = actor._replace(at="store", seen=state.maxlen)
            yield Step(f"P{me} reads maxlen {state.maxlen}", _put(state, me, looked))
            return
        known = state.maxlen if self.rules.resize_checks_inside else actor.seen
        if wanted <= known and not state.dirty:
            yield Step(f"P{me} resize to {wanted}: refused", _put(state, me, done))
            return
        sequences: Change = {"max_sequences": wanted}
        transitions: Change = {"maxlen": wanted}
        stores = (sequences, transitions)
        if not self.rules.sequences_before_maxlen:
            stores = (transitions, sequences)
        for step in self._section(state, me, f"P{me} resizes to {wanted}", done, *stores):
            after = step.state
            assert isinstance(after, GrowState)
            returned = after.actors[me] == done and not after.dead >> me & 1
            asked = max(after.asked, wanted) if returned else after.asked
            yield step._replace(state=after._replace(asked=asked))


def _kill(state: GrowState, me: int) -> GrowState:
    freed = NOBODY if state.grower == me else state.grower
    after = state._replace(dead=state.dead | 1 << me, crashes=state.crashes - 1, grower=freed)
    return _put(after, me, Actor())


def _put(state: GrowState, me: int, actor: Actor) -> GrowState:
    return state._replace(actors=(*state.actors[:me], actor, *state.actors[me + 1 :]))


def _with(items: tuple[object, ...], index: int, item: object) -> tuple[object, ...]:
    return (*items[:index], item, *items[index + 1 :])
