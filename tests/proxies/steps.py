"""Steps of agents whose numbers say whose they are, and a table for them."""

from __future__ import annotations

from typing import Any

from shmtable import (
    Column,
    DictObservation,
    DictResponse,
    EpisodeState,
    MetaData,
    NextElementMapper,
    TagColumn,
    VirtualColumn,
)

INITIAL, RUNNING = EpisodeState.INITIAL, EpisodeState.RUNNING
TERMINAL, INTERRUPTED = EpisodeState.TERMINAL, EpisodeState.INTERRUPTED


def columns(*more: Column) -> list[Column]:
    """obs [2] with its next, one action, a reward of shape (1,), and what is given."""
    return [
        Column("obs", (2,), "float32"),
        VirtualColumn("next_obs", (2,), "float32", "obs", NextElementMapper),
        Column("actions", (1,), "float32"),
        Column("rewards", (1,), "float32"),
        *more,
    ]


TERMINAL_TAG = TagColumn("terminal", (), "float32")


def observation(
    agent: int, step: int, state: EpisodeState, info: dict[str, float] | None = None
) -> DictObservation:
    """obs (agent, step); the reward is that of the action before, agent + step / 10 - 0.1."""
    return DictObservation(
        rewards={"reward": None if state is INITIAL else agent + (step - 1) / 10},
        episode_state=state,
        array_data={"obs": [float(agent), float(step)]},
        metadata=None if info is None else MetaData(info=info, info_lists={}),
    )


def response(agent: int, step: int) -> DictResponse:
    """The action 100 * agent + step."""
    return DictResponse(list_data={"actions": [100.0 * agent + step]}, scalar_data={})


def play(proxy: Any, agent: int, length: int, end: EpisodeState = TERMINAL) -> None:
    """A whole episode of so many actions."""
    for step in range(length):
        state = RUNNING if step else INITIAL
        proxy.add({agent: observation(agent, step, state)}, {agent: response(agent, step)})
    proxy.add({agent: observation(agent, length, end)}, {})
