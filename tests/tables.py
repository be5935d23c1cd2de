"""A small table's columns, and sequences in which every number tells where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmtable import Column, NextElementMapper, SyntheticDones, VirtualColumn

OBS_WIDTH = 3


def small_columns() -> list[Column]:
    """obs [3] and its next, one integer action (the length key), a reward and a done."""
    return [
        Column("obs", (OBS_WIDTH,), "float32"),
        VirtualColumn(
            "next_obs", (OBS_WIDTH,), "float32", target_name="obs", mapper=NextElementMapper
        ),
        Column("actions", (), "int64"),
        Column("rewards", (), "float32"),
        VirtualColumn("dones", (), "bool", target_name="actions", mapper=SyntheticDones),
    ]


def small_sequence(identity: int, length: int) -> dict[str, Any]:
    """A sequence for :func:`small_columns` that can be recognised from any of its elements.

    ``obs[t] = (identity, t, length)``, ``actions[t] = identity * 1000 + t`` and
    ``rewards[t] = identity + t``, so that a window holding rows of two sequences, or rows
    of one in the wrong order, contradicts itself. Keep identities below 2**20 and lengths
    below 1000: float32 holds them exactly.
    """
    steps = np.arange(length + 1)
    obs = np.empty((length + 1, OBS_WIDTH), np.float32)
    obs[:, 0] = identity
    obs[:, 1] = steps
    obs[:, 2] = length
    return {
        "obs": obs,
        "actions": identity * 1000 + steps[:length],
        "rewards": (identity + steps[:length]).astype(np.float32),
    }


def torn_windows(sample: dict[str, Any], sequence_length: int) -> list[str]:
    """What contradicts itself in a flat sample of :func:`small_sequence` data; empty when sound."""
    obs = sample["obs"].reshape(-1, sequence_length, OBS_WIDTH).numpy()
    following = sample["next_obs"].reshape(-1, sequence_length, OBS_WIDTH).numpy()
    actions = sample["actions"].reshape(-1, sequence_length).numpy()
    rewards = sample["rewards"].reshape(-1, sequence_length).numpy()
    dones = sample["dones"].reshape(-1, sequence_length).numpy()
    findings = []
    for window in range(len(obs)):
        identity, first, length = obs[window, 0].astype(int)
        steps = np.arange(first, first + sequence_length)
        expected = {
            "obs": (obs[window], np.stack(np.broadcast_arrays(identity, steps, length), -1)),
            "next_obs": (
                following[window],
                np.stack(np.broadcast_arrays(identity, steps + 1, length), -1),
            ),
            "actions": (actions[window], identity * 1000 + steps),
            "rewards": (rewards[window], identity + steps),
            "dones": (dones[window], steps == length - 1),
        }
        for name, (found, wanted) in expected.items():
            if not np.array_equal(found, wanted):
                findings.append(f"window {window}, {name}: {found.tolist()}, not {wanted.tolist()}")
    return findings
