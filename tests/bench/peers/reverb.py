"""Reverb: a server in the learner's process, which clients of that process reach directly.

Its windows are fixed when data is inserted, so there is a table for each length. Sampling goes
through its dataset, which fetches ahead in threads of its own.
"""

from __future__ import annotations

import itertools
import os
from importlib import metadata
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import reverb  # noqa: E402
import tensorflow as tf  # noqa: E402

from tests.bench.peers.base import (  # noqa: E402
    Arrays,
    Call,
    Cannot,
    Setup,
    Shared,
    in_turn,
    sequences,
    unrolled,
)

AHEAD = 10  # batches that may lie ready when nobody has asked for a while
_MOST = 100_000  # it takes about a tenth of a millisecond a transition to fill one


def versions() -> dict[str, str]:
    """See ``Peer``."""
    return {
        "dm-reverb": metadata.version("dm-reverb"),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def _signature(setup: Setup, length: int) -> dict[str, Any]:
    layout = setup.columns
    described = {
        name: tf.TensorSpec((length, *shape), dtype)
        for name, (shape, dtype) in layout.columns.items()
    }
    if layout.follows:
        described["next_obs"] = described["obs"]
        described["dones"] = tf.TensorSpec((length,), tf.bool)
    return described


def _insert(writer: Any, steps: list[Arrays], length: int) -> None:
    """One sequence, of which every window becomes an item."""
    for number, step in enumerate(steps, 1):
        writer.append(step)
        if number >= length:
            window = {name: column[-length:] for name, column in writer.history.items()}
            writer.create_item("table", priority=1.0, trajectory=window)
    writer.end_episode()


def _adding(writer: Any, setup: Setup, steps: int, length: int, seed: int = 0) -> Call:
    source = sequences(setup, steps, seed)
    rows = [unrolled(setup.columns, next(source)) for _ in range(4)]
    ready = itertools.cycle(
        [[{n: c[i] for n, c in each.items()} for i in range(steps)] for each in rows]
    )
    return lambda: _insert(writer, next(ready), length)


class Server:
    """A server with one table of windows of one length, full."""

    def __init__(self, setup: Setup, length: int) -> None:
        chosen = (
            reverb.selectors.Prioritized(0.6) if setup.priorities else reverb.selectors.Uniform()
        )
        self._server = reverb.Server(
            [
                reverb.Table(
                    "table",
                    sampler=chosen,
                    remover=reverb.selectors.Fifo(),
                    max_size=setup.transitions,
                    rate_limiter=reverb.rate_limiters.MinSize(1),
                    signature=_signature(setup, length),
                )
            ],
            port=None,
        )
        self.address = f"localhost:{self._server.port}"
        self.client = reverb.Client(self.address)
        self.writer = self.client.trajectory_writer(num_keep_alive_refs=length)
        add = _adding(self.writer, setup, setup.steps, length)
        for _ in range(setup.transitions // setup.steps):
            add()

    def batches(self, count: int) -> Any:
        """An endless iterator of batches."""
        dataset = reverb.TrajectoryDataset.from_table_signature(
            self.address, "table", max_in_flight_samples_per_worker=2 * count
        )
        return iter(dataset.batch(count, drop_remainder=True))

    def stop(self) -> None:
        """Ends the server."""
        self.writer.close()
        self._server.stop()


class Tables:
    """See ``Table``."""

    def __init__(self, setup: Setup) -> None:
        if setup.transitions > _MOST:
            raise Cannot(f"filled through its writer, more than {_MOST} would take minutes")
        self._setup = setup
        self._servers: dict[int, Server] = {}

    def _server(self, length: int) -> Server:
        if length not in self._servers:
            self._servers[length] = Server(self._setup, length)
        return self._servers[length]

    def sampler(self, count: int, length: int) -> Call:
        """See ``Table``."""
        batches = self._server(length).batches(count)
        return lambda: next(batches)

    def updater(self, count: int) -> Call:
        """See ``Table``."""
        server = self._server(1)
        batches = server.batches(count)
        priorities = np.random.default_rng(0).random(count).tolist()
        updates = in_turn(
            lambda: dict(zip(next(batches).info.key.numpy().tolist(), priorities, strict=True))
        )
        return lambda: server.client.mutate_priorities("table", next(updates))

    def adder(self, steps: int, form: str) -> Call:
        """See ``Table``."""
        if form != "arrays":
            raise Cannot("takes arrays, a step at a time")
        return _adding(self._server(1).writer, self._setup, steps, 1)

    def close(self) -> None:
        """See ``Table``."""
        while self._servers:
            self._servers.popitem()[1].stop()


def open(setup: Setup) -> Tables:  # noqa: A001
    """See ``Peer``."""
    return Tables(setup)


def writer(address: str, number: int) -> Call:
    """Adds whole sequences over the network of the machine."""
    setup = Setup()
    client = reverb.Client(address)
    return _adding(client.trajectory_writer(num_keep_alive_refs=1), setup, setup.steps, 1, number)


_kept: list[Server] = []


def share(setup: Setup) -> Shared:
    """See ``Peer``."""
    server = Server(Setup(transitions=min(setup.transitions, 20_000)), 1)
    _kept.append(server)  # until this process ends
    batches = server.batches(256)
    return Shared(
        "spawn",
        server.address,
        writer,
        lambda: next(batches),
        remark="writers come over gRPC; batches are fetched ahead",
    )
