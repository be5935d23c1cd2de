"""From steps of agents to sequences in a table: between those who act and the memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from typing import Any, NoReturn, Protocol

import numpy as np
from torch import Tensor

from shmtable.columns import VirtualColumn
from shmtable.errors import SequenceError, SpecError
from shmtable.protocols.arguments import at_least_one
from shmtable.table import ArrayMemoryTable

_LOGGER = logging.getLogger("shmtable")
_REWARD, _REWARDS, _TERMINAL = "reward", "rewards", "terminal"

#: Whose step it is: any integer.
AgentId = int


class EpisodeState(Enum):
    """Where in its episode an agent is when it observes.

    Attributes:
        RUNNING: it acts now, and has acted before.
        INTERRUPTED: the end, from outside: a time limit, say. What would have followed still has a
            value.
        TERMINAL: the end, of the agent's own doing. Nothing follows.
        INITIAL: it acts now for the first time.
    """

    RUNNING = 0
    INTERRUPTED = 1
    TERMINAL = 2
    INITIAL = 3


@dataclass
class MetaData:
    """Numbers about a step that are logged and not learned from.

    Attributes:
        info: single numbers by name.
        info_lists: several of them by name.
    """

    info: Mapping[str, float]
    info_lists: Mapping[str, Sequence[float]]


@dataclass
class DictObservation:
    """What an agent gets to see.

    Attributes:
        rewards: "reward" for the action before; nothing is asked of it in an initial state.
        episode_state: where in its episode the agent is.
        array_data: the observations by column, arrays or lists.
        metadata: to be logged, or None.
    """

    rewards: Mapping[str, Any]
    episode_state: EpisodeState
    array_data: Mapping[str, Any]
    metadata: MetaData | None = None


@dataclass
class DictResponse:
    """What an agent does.

    Attributes:
        list_data: arrays or lists by column: actions, recurrent states.
        scalar_data: single numbers by column.
    """

    list_data: Mapping[str, Any]
    scalar_data: Mapping[str, Any]


class Observation(Protocol):
    """Whatever has a :class:`DictObservation`'s attributes; the state is known by its name."""

    @property
    def rewards(self) -> Mapping[str, Any]: ...

    @property
    def episode_state(self) -> Any: ...

    @property
    def array_data(self) -> Mapping[str, Any]: ...

    @property
    def metadata(self) -> Any: ...


class Response(Protocol):
    """Whatever has a :class:`DictResponse`'s attributes."""

    @property
    def list_data(self) -> Mapping[str, Any]: ...

    @property
    def scalar_data(self) -> Mapping[str, Any]: ...


Observations = Mapping[AgentId, Observation]
Responses = Mapping[AgentId, Response]


def has_ended(agent: AgentId, observation: Observation) -> bool:
    """Whether an observation is the last one of its episode.

    Raises:
        SequenceError: its state is none.
    """
    return _state(agent, observation) in (EpisodeState.TERMINAL.name, EpisodeState.INTERRUPTED.name)


@dataclass
class _Step:
    """One agent's step, checked."""

    agent: AgentId
    is_last: bool
    data: dict[str, Any]


class MemoryTableProxy:
    """Collects the steps of any number of agents, and adds each finished episode to a table.

    One process that acts has one; it is not to be used by several threads at a time.

    A step is an observation and the response to it. The reward that an observation brings is for
    the response before, so an episode with n responses has n rewards, and n + 1 observations: the
    last one brings no response and stands behind the last transition, where the table's virtual
    columns find it. What the table has no column for is left out.

    Args:
        memory_table: where finished episodes go.
        minimum_length_threshold: episodes with fewer transitions are dropped; None keeps all.
        use_terminal: write the tag "terminal" of each sequence: 0 where the episode was TERMINAL,
            1 where it was INTERRUPTED, as :class:`TerminalAdaptor` takes it.
        name: of this proxy, for those who log.
        identity_of: the identity of an agent's finished sequence, which no other one in the table
            may have; the agent's number if None, so that an agent plays one episode.

    Raises:
        SpecError: ``use_terminal`` with a table that has no such tag, or a threshold below 1.
    """

    def __init__(
        self,
        memory_table: ArrayMemoryTable,
        minimum_length_threshold: int | None = None,
        use_terminal: bool = False,
        *,
        name: str = "memproxy",
        identity_of: Callable[[AgentId], int] | None = None,
    ) -> None:
        self._table = memory_table
        self._name = name
        self._identity_of = identity_of
        # 0 has always been a way to say: keep all.
        self._least = at_least_one("minimum_length_threshold", minimum_length_threshold or 1)
        self._use_terminal = use_terminal
        self._length_key = memory_table.length_key
        self._shapes = {
            column.name: column.shape
            for column in memory_table.columns
            if not isinstance(column, VirtualColumn)
        }
        if use_terminal and _TERMINAL not in self._shapes:
            raise SpecError(
                f"use_terminal needs a tag '{_TERMINAL}', the table has {', '.join(self._shapes)}; "
                f"add TagColumn('{_TERMINAL}', (), 'float32')"
            )
        self._episodes: dict[AgentId, dict[str, list[Any]]] = {}
        self._finished: deque[tuple[int, dict[str, list[Any]]]] = deque()

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    def size(self) -> int:
        """Number of transitions in the table."""
        return self._table.size()

    def resize(self, new_size: int) -> None:
        """Raise the table's ``maxlen``."""
        self._table.resize(new_size)

    def store(self, path: str | PathLike[str]) -> bool:
        """Write the table to the file ``path + ".zip"``; open episodes are not in it."""
        return self._table.store(path)

    def is_initial(self, identity: AgentId) -> bool:
        """Whether an agent has no open episode."""
        return identity not in self._episodes

    def discard(self, identity: AgentId) -> None:
        """Drop an agent's open episode, if it has one: its environment has broken down, say."""
        self._episodes.pop(identity, None)

    def add(self, observations: Observations, responses: Responses) -> None:
        """Take one step of some agents, and add the episodes that end with it.

        An agent that is met first in the middle of its episode begins a sequence there, without
        the reward for an action that nobody saw. One that ends without a beginning is passed over
        with a warning in the log.

        Args:
            observations: by agent; of this package's, or of any type with the same attributes.
            responses: by agent, for all those whose episode goes on.

        Raises:
            SequenceError: steps that do not follow each other, and then none of them has been
                taken; or an episode that the table refuses, which is dropped.
            WaitTimeoutError: the table had no room in time; the next call tries again.
        """
        steps = [
            self._checked(agent, observation, responses.get(agent))
            for agent, observation in observations.items()
        ]
        for step in steps:
            self._take(step)
        while self._finished:
            try:
                self._table.add_sequence(*self._finished[0])
            except (SequenceError, SpecError):
                self._finished.popleft()  # it would be refused again
                raise
            self._finished.popleft()

    def _checked(self, agent: AgentId, observation: Observation, response: Any) -> _Step:
        """One agent's step as the rows it adds; changes nothing."""
        state, is_open = _state(agent, observation), agent in self._episodes
        is_first, is_last = state == EpisodeState.INITIAL.name, has_ended(agent, observation)
        if is_first and is_open:
            _refuse(agent, state, "its last episode is still open; end or discard that one first")
        data = dict(observation.array_data)
        if is_open:
            if _REWARD not in observation.rewards:
                _refuse(
                    agent, state, f"has no '{_REWARD}' in rewards; give that of its last action"
                )
            data[_REWARDS] = observation.rewards[_REWARD]
        if not is_last:
            if response is None:
                _refuse(agent, state, "there is no response to it; give one, or end the episode")
            data.update(response.list_data)
            data.update(response.scalar_data)
        elif self._use_terminal:
            data[_TERMINAL] = float(state == EpisodeState.INTERRUPTED.name)
        rows = {
            name: self._row(name, value) for name, value in data.items() if name in self._shapes
        }
        return _Step(agent, is_last, rows)

    def _row(self, name: str, value: Any) -> Any:
        # Copied, since environments write each step into the same arrays.
        if isinstance(value, Tensor):
            return value.detach().clone()
        row = np.array(value)
        shape = self._shapes[name]
        return row.reshape(shape) if not row.ndim and set(shape) == {1} else row

    def _take(self, step: _Step) -> None:
        if step.is_last and step.agent not in self._episodes:
            _LOGGER.warning("agent %d has ended and had not begun; passed over", step.agent)
            return
        episode = self._episodes.setdefault(step.agent, {})
        for name, row in step.data.items():
            episode.setdefault(name, []).append(row)
        if step.is_last:
            del self._episodes[step.agent]
            if len(episode.get(self._length_key, ())) >= self._least:
                identity = self._identity_of(step.agent) if self._identity_of else step.agent
                self._finished.append((identity, episode))


def _state(agent: AgentId, observation: Observation) -> str:
    # By name: other packages have an enumeration of their own.
    state = getattr(observation.episode_state, "name", observation.episode_state)
    if state not in EpisodeState.__members__:
        known = ", ".join(EpisodeState.__members__)
        raise SequenceError(
            f"agent {agent}: episode_state is {observation.episode_state!r}; give one of {known}"
        )
    return str(state)


def _refuse(agent: AgentId, state: str, reason: str) -> NoReturn:
    raise SequenceError(f"agent {agent}: its observation is {state}, and {reason}", agent=agent)
