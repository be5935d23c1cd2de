"""``python -m tests.bench.ray_shards``: a table over nodes, beside one table and plain Ray.

Three nodes are simulated on this machine, so nothing crosses a network: what is seen is what the
table costs on top of shared memory and of Ray's object store. Whatever is compared is called in
turn, in one process, so that a busy machine slows all of it alike; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shmtable import ArrayMemoryTable, Column, FifoEjectionStrategy, UniformSampleStrategy
from shmtable.demo.nodes import SimulatedNodes
from shmtable.integrations.ray import DistributedMemoryTable

ROW_BYTES = 1024
STEPS = 16
AHEAD = 4
BURST = 24  # of what is asked for ahead, so many are taken in a row


def columns() -> list[Column]:
    """Rows of 1 KiB, so that 64 windows of 16 are 1 MiB; and an action."""
    return [Column("obs", (ROW_BYTES,), "uint8"), Column("actions", (), "int64")]


def options(maxlen: int) -> dict[str, Any]:
    return {
        "columns": columns(),
        "maxlen": maxlen,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
        "seed": 0,
    }


def sequence(length: int) -> dict[str, Any]:
    return {
        "obs": np.ones((length, ROW_BYTES), np.uint8),
        "actions": np.zeros(length, np.int64),
    }


def in_turn(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, called one after the other, again and again."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds + rounds // 10 + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            calls[name]()
            took[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[rounds // 10 :]) for name, times in took.items()}


def say(title: str, found: Mapping[str, float], beside: str) -> None:
    print(f"\n{title}")
    for name, seconds in found.items():
        print(f"  {name:48} {seconds * 1e6:9.0f} us  {seconds / found[beside]:6.2f}")


def adding(table: DistributedMemoryTable, rounds: int) -> None:
    """One sequence after the other: into one named table, and into this node's shard."""
    for length in (20, 200):
        given = sequence(length)
        numbers = itertools.count()
        with ArrayMemoryTable(name=f"bench-{secrets.token_hex(4)}", **options(5000)) as single:
            calls = {
                name: partial(add, into, numbers, given)
                for name, into in (("single table", single), ("this node's shard", table))
            }
            found = in_turn(calls, rounds)
        say(f"adding a sequence of {length} transitions of 1 KiB", found, "single table")
        table.clear()


def add(into: Any, numbers: Iterator[int], given: dict[str, Any]) -> None:
    into.add_sequence(next(numbers), given)


class Plain:
    """Answers with as many bytes as a batch has."""

    def __init__(self, size: int) -> None:
        self._bytes = np.ones(size, np.uint8)

    def give(self) -> Any:
        return self._bytes


def started(nodes: list[str], size: int) -> list[Any]:
    """An actor on each of these nodes that answers with so many bytes."""
    actors = [
        ray.remote(Plain)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, False))
        .remote(size)
        for node in nodes
    ]
    ray.get([actor.give.remote() for actor in actors])
    return actors


def ahead_of(actors: list[Any], ahead: int) -> Iterator[Any]:
    """What plain Ray does: so many answers asked for at a time, of the actors in turn."""
    turns = itertools.cycle(actors)
    asked = [next(turns).give.remote() for _ in range(ahead)]
    while True:
        asked.append(next(turns).give.remote())
        yield ray.get(asked.pop(0))


def sampling(table: DistributedMemoryTable, nodes: list[str], rounds: int) -> None:
    """Batches of 64 KiB to 4 MiB, beside a plain ``ray.get`` of the same bytes."""
    fill(table)
    for count in (4, 64, 256):
        size = count * STEPS * ROW_BYTES
        actors = started(nodes, size)
        turns = itertools.cycle(actors)
        put = ray.put(np.ones(size, np.uint8))
        plain, batches = ahead_of(actors, AHEAD), table.batches(count, STEPS, ahead=AHEAD)
        copied = np.empty(size, np.uint8)
        calls = {
            "ray.get of an actor's answer": lambda turns=turns: ray.get(next(turns).give.remote()),
            "sample": lambda count=count: table.sample(count, STEPS),
            f"ray.get of answers asked for {AHEAD} ahead": partial(several, plain),
            f"batches asked for {AHEAD} ahead": partial(several, batches),
            "ray.get of what lies there, no copy": lambda put=put: ray.get(put),
            "ray.get of what lies there, copied": lambda put=put, copied=copied: np.copyto(
                copied, ray.get(put)
            ),
        }
        found = in_turn(calls, rounds)
        for name in found:
            if "asked for" in name:
                found[name] /= BURST
        title = f"a batch of {count} windows, {size / 2**20:g} MiB"
        say(title, found, "ray.get of an actor's answer")
        single, stream = list(found.values())[:2], list(found.values())[2:4]
        one, ahead = single[1] / single[0], stream[1] / stream[0]
        print(f"  sample / ray.get {one:.2f}, ahead {ahead:.2f}")
        for actor in actors:
            ray.kill(actor)


def several(stream: Iterator[Any]) -> None:
    for _ in range(BURST):
        next(stream)


def fill(table: DistributedMemoryTable) -> None:
    """3000 transitions for each shard, from this process, which reaches all simulated nodes."""
    for number, shard in enumerate(table.stats().shards):
        with ArrayMemoryTable.attach(shard.name) as attached:
            for place in range(15):
                attached.add_sequence(100 * number + place, sequence(200))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="calls of each (default: 200)")
    rounds = parser.parse_args().rounds
    with SimulatedNodes(3, store_bytes=200 << 20) as cluster:
        name = f"bench-{secrets.token_hex(4)}"
        with DistributedMemoryTable(name=name, deadline_s=60.0, **options(5000)) as table:
            adding(table, rounds * 2)
            sampling(table, cluster.ids, rounds)


if __name__ == "__main__":
    main()
