"""A small explicit-state model checker: every order of steps, breadth first.

A *model* is a set of start states and a function from a state to its possible next steps. The
checker visits every reachable state once, asks the model whether anything is wrong there, and
remembers how it got there; so what it prints for a broken protocol is a shortest story that
breaks it, step by step. Three things count as broken:

* a state that violates an invariant (``Model.problem``);
* a step that itself does harm (``Step.wrong``): a torn window handed out, say;
* a state in which somebody has work left and nobody can move (stuck).

Nothing is sampled and nothing is random: "holds" means that no order of steps within the model's
bounds does harm. Outside those bounds (more processes, more slots, more crashes) it says nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple):
    """One thing that can happen next.

    ``fault`` marks what the protocol suffers but does not do (a kill, a Ctrl-C): a state whose
    only way on is a fault is stuck.
    """

    label: str
    state: Hashable
    wrong: str = ""
    fault: bool = False


class Model(Protocol):
    """What the checker needs to know of a protocol."""

    name: str

    def initial(self) -> Iterable[Hashable]:
        """The states it may start in."""

    def steps(self, state: Hashable) -> Iterator[Step]:
        """Everything that can happen next in ``state``."""

    def problem(self, state: Hashable) -> str:
        """The invariant that ``state`` violates, in words; empty when none."""

    def finished(self, state: Hashable) -> bool:
        """Whether everybody has ended, so that having no next step is fine."""

    def show(self, before: Hashable, after: Hashable) -> str:
        """What changed between two states, for the printed story."""


class TooManyStates(Exception):
    """The bounds are too wide: nothing has been shown, so nothing may be reported as holding."""


@dataclass
class Verdict:
    """What exploring a model gave; ``trace`` is empty when it holds."""

    name: str
    states: int = 0
    steps: int = 0
    depth: int = 0
    problem: str = ""
    trace: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.problem

    def __str__(self) -> str:
        size = f"{self.states} states, {self.steps} steps, depth {self.depth}"
        if self.holds:
            return f"{self.name}: holds ({size})"
        return "\n".join([f"{self.name}: BROKEN: {self.problem} ({size})", *self.trace])


def explore(model: Model, max_states: int = 2_000_000) -> Verdict:
    """Visit every state that ``model`` can reach, up to the first thing wrong.

    Args:
        max_states: more than this many is an error, never a silent "holds".
    Raises:
        TooManyStates: the bounds do not fit.
    """
    verdict = Verdict(model.name)
    came_from: dict[Hashable, tuple[Hashable, str] | None] = {}
    frontier: list[Hashable] = []
    for state in model.initial():
        came_from[state] = None
        frontier.append(state)
    while frontier:
        following: list[Hashable] = []
        for state in frontier:
            problem = model.problem(state)
            stuck = not problem
            if not problem:
                for step in model.steps(state):
                    verdict.steps += 1
                    stuck = stuck and step.fault
                    if step.wrong:
                        verdict.states = len(came_from)
                        verdict.problem = step.wrong
                        verdict.trace = _story(model, came_from, state, step)
                        return verdict
                    if step.state not in came_from:
                        came_from[step.state] = (state, step.label)
                        following.append(step.state)
            if stuck and not problem and not model.finished(state):
                problem = "stuck: somebody has work left and nobody can move"
            if problem:
                verdict.states = len(came_from)
                verdict.problem = problem
                verdict.trace = _story(model, came_from, state, None)
                return verdict
        if len(came_from) > max_states:
            raise TooManyStates(f"{model.name}: more than {max_states} states; narrow its bounds")
        frontier = following
        verdict.depth += 1
    verdict.states = len(came_from)
    return verdict


def _story(
    model: Model,
    came_from: dict[Hashable, tuple[Hashable, str] | None],
    last: Hashable,
    harm: Step | None,
) -> list[str]:
    """The steps from a start state to ``last``, and the harmful one after it, one a line."""
    lines: list[str] = []
    if harm is not None:
        lines.append(f"{harm.label}   {model.show(last, harm.state)}".rstrip())
    state = last
    while (origin := came_from[state]) is not None:
        before, label = origin
        lines.append(f"{label}   {model.show(before, state)}".rstrip())
        state = before
    return [f"  {number:2}. {line}" for number, line in enumerate(reversed(lines), start=1)]
