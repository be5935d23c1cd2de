"""Sequences whose every number says where it belongs, for tables that several processes use.

A sequence is known by its identity and a version (which of several sequences of that identity it
is), a row by its step. Every element of every column follows from these three and from its place
in the row, so any mixture of two sequences, of two versions of one, or of rows in the wrong order
contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    NextElementMapper,
    SyntheticDones,
    TagColumn,
    UniformSampleStrategy,
    VirtualColumn,
)

VERSIONS = 1 << 16
LONGEST = 1 << 11  # steps, the one after the last included

Array = npt.NDArray[Any]


def columns(width: int = 4) -> list[Column]:
    """Every kind of column. The wider an observation, the longer its copy takes: easier to tear."""
    ahead = {"target_name": "obs"}
    return [
        Column("obs", (width,), "int64"),
        VirtualColumn("next_obs", (width,), "int64", **ahead, mapper=NextElementMapper),
        VirtualColumn(
            "last_obs", (width,), "int64", **ahead, mapper=NextElementMapper.with_only_last
        ),
        Column("actions", (), "int64"),
        Column("rewards", (2,), "float64"),
        Column("small", (), "uint8"),
        VirtualColumn("dones", (), "bool", target_name="actions", mapper=SyntheticDones),
        TagColumn("who", (4,), "int64"),
    ]


def make(width: int = 4, **options: Any) -> ArrayMemoryTable:
    """A table of these columns."""
    chosen: dict[str, Any] = {
        "columns": columns(width),
        "maxlen": 1000,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
        **options,
    }
    return ArrayMemoryTable(**chosen)


def sequence(identity: int, length: int, *, version: int = 0, width: int = 4) -> dict[str, Array]:
    """What belongs to an identity: 0 <= identity < 2**31, 1 <= length < 2**11."""
    key = identity * VERSIONS + version
    obs = _obs(np.array([key]), np.arange(length + 1)[None], width)[0]
    actions = key * LONGEST + np.arange(length)
    return {
        "obs": obs,
        "actions": actions,
        "rewards": _rewards(actions),
        "small": _small(actions),
        "who": _who(np.array([[identity, version, length]]))[0],
    }


def wrong_with(sample: Mapping[str, torch.Tensor], steps: int) -> list[str]:
    """What contradicts itself in a flat sample of windows of ``steps``; empty when it is whole."""
    who = sample["who"].numpy()
    windows = len(who)
    obs = sample["obs"].numpy().reshape(windows, steps, -1)
    width = obs.shape[-1]
    key = who[:, 0] * VERSIONS + who[:, 1]
    first = sample["actions"].numpy().reshape(windows, steps)[:, 0] - key * LONGEST
    at = first[:, None] + np.arange(steps)
    actions = key[:, None] * LONGEST + at
    expected = {
        "obs": _obs(key, at, width),
        "next_obs": _obs(key, at + 1, width),
        "last_obs": _obs(key, at[:, -1:] + 1, width),
        "actions": actions,
        "rewards": _rewards(actions),
        "small": _small(actions),
        "dones": at == who[:, 2:3] - 1,
        "who": _who(who[:, :3]),
    }
    findings = []
    inside = (first >= 0) & (first + steps <= who[:, 2])
    if not inside.all():
        findings.append(f"windows outside their sequence: {who[~inside]}, first {first[~inside]}")
    for name, wanted in expected.items():
        found = sample[name].numpy().reshape(wanted.shape)
        if not np.array_equal(found, wanted):
            window = int(np.argwhere(found != wanted)[0][0])
            findings.append(
                f"{name} of window {window} of {who[window]}: {found[window].tolist()}, "
                f"not {wanted[window].tolist()}"
            )
    return findings


def wrong_with_sequence(found: Mapping[str, torch.Tensor], identity: int) -> list[str]:
    """What is wrong with what ``table.sequence(identity)`` returned, whichever its version."""
    who, version, length, _ = found["who"].tolist()
    if who != identity:
        return [f"identity {identity} holds the tag of {who}"]
    wanted = sequence(identity, length, version=version, width=found["obs"].shape[-1])
    return [
        f"{name} of identity {identity}, version {version}: {found[name].tolist()}"
        for name in wanted
        if not np.array_equal(found[name].numpy(), wanted[name])
    ]


def _who(parts: Array) -> Array:
    return np.column_stack([parts, parts @ [31, 7, 1]])


def _obs(keys: Array, at: Array, width: int) -> Array:
    # The product wraps around, which does no harm: it only has to differ from row to row.
    base = (keys[:, None] * LONGEST + at)[..., None]
    return base * 1_000_003 + np.arange(width)


def _rewards(actions: Array) -> Array:
    return np.stack([actions % 1_000_007, -(actions % 65_537)], -1).astype(np.float64)


def _small(actions: Array) -> Array:
    return (actions % 251).astype(np.uint8)
