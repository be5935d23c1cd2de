"""``python -m tests.bench.ray_plan``: what to expect of 100 nodes, from costs measured here.

First the costs of single steps are measured on a simulated cluster of three nodes: what a question
and its answer take the learner, what a draw takes a shard, what copying takes, what an add takes.
Then batches are simulated, event by event, for as many nodes as asked for: the learner's one thread
asks every shard and handles every answer, each shard draws one part after the other, and all
answers share the learner's network. ``--costs`` takes costs measured elsewhere instead.
"""

from __future__ import annotations

import argparse
import heapq
import json
import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray

from shmtable import ArrayMemoryTable
from shmtable.demo.nodes import SimulatedNodes
from shmtable.integrations.ray import DistributedMemoryTable
from tests.bench.ray_shards import (
    BURST,
    ROW_BYTES,
    STEPS,
    ahead_of,
    fill,
    options,
    sequence,
    several,
    started,
)

ACTORS_PER_NODE = 100
STEPS_PER_S = 100.0  # of one actor
EPISODE = 200
NETWORK_BYTES_PER_S = 10e9 / 8
_MOVED = 4 << 20
JITTER = 0.5  # sigma of the logarithm of a shard's time


@dataclass(frozen=True)
class Costs:
    """Seconds.

    Attributes:
        ask: the learner's processor time, to ask a shard and take its answer, without its bytes.
        draw: a shard's, for each answer.
        draw_byte, copy_byte: more for each byte, of the shard and of the learner.
        move_byte: to bring each byte from another node, by plain Ray.
        add: a writer's, for one episode of 200 transitions of 1 KiB.
    """

    ask: float
    draw: float
    draw_byte: float
    copy_byte: float
    move_byte: float
    add: float


def took(call: Callable[[], Any], times: int) -> float:
    """Median seconds of a call."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def measure() -> Costs:
    """The costs on this machine, as it is just now."""
    with SimulatedNodes(3, store_bytes=200 << 20) as cluster:
        name = f"bench-{secrets.token_hex(4)}"
        with DistributedMemoryTable(name=name, deadline_s=60.0, **options(5000)) as table:
            fill(table)
            actors = [actor for *_, actor in table._states()]
            many = actors * 20

            def ask() -> None:
                ray.get([actor.draw.remote(0, STEPS) for actor in many])

            ask()
            began = time.process_time()  # this process's own: the shards have their own machines
            for _ in range(20):
                ask()
            each = (time.process_time() - began) / 20 / len(many)
            with ArrayMemoryTable.attach(table.stats().shards[0].name) as shard:
                little = took(lambda: shard.sample(1, STEPS), 200)
                much = took(lambda: shard.sample(64, STEPS), 200)
                given, numbers = sequence(EPISODE), iter(range(10_000, 20_000))
                add = took(lambda: shard.add_sequence(next(numbers), given), 200)
            here = ray.get_runtime_context().get_node_id()
            plain = ahead_of(started([node for node in cluster.ids if node != here], _MOVED), 4)
            move = took(lambda: several(plain), 8) / BURST / _MOVED
    size = 64 * STEPS * ROW_BYTES
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    copy = took(lambda: np.copyto(target, source), 100) / size
    # Once into Ray's store, besides the gathering.
    return Costs(each, little, max(much - little, 0.0) / size + copy, copy, move, add)


def simulate(costs: Costs, nodes: int, windows: int, ahead: int, batches: int = 300) -> float:
    """Batches per second of one learner, each of ``windows`` windows of 16 KiB over all nodes."""
    random = np.random.default_rng(0)
    part = windows * STEPS * ROW_BYTES / nodes
    cpu = wire = 0.0  # when the learner's thread, and its network, are free
    free = np.zeros(nodes)  # when each shard is
    asked: list[list[float]] = []
    began = 0.0
    for number in range(batches + ahead):
        if number >= ahead:  # take the oldest: wait for its last answer, and copy
            cpu = max(cpu, max(asked.pop(0))) + windows * STEPS * ROW_BYTES * costs.copy_byte
            if number == ahead + batches // 10:
                began = cpu
        drawn = []
        for shard in range(nodes):
            cpu += costs.ask
            slow = random.lognormal(-(JITTER**2) / 2, JITTER)
            done = max(cpu, free[shard]) + (costs.draw + part * costs.draw_byte) * slow
            free[shard] = done
            heapq.heappush(drawn, done)
        arrived = []
        while drawn:
            wire = max(wire, heapq.heappop(drawn)) + part * max(
                1 / NETWORK_BYTES_PER_S, costs.move_byte
            )
            arrived.append(wire)
        asked.append(arrived)
    return (batches - batches // 10) / (cpu - began)


def main() -> None:
    """Measures, simulates and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", help="JSON, as this program prints it")
    given = parser.parse_args().costs
    costs = Costs(**json.loads(given)) if given else measure()
    print(json.dumps(asdict(costs)))
    print(f"{ACTORS_PER_NODE} actors per node, {STEPS_PER_S:g} steps/s each, 1 KiB a step")
    print("nodes  actors  added MB/s  a node's adds  1 MiB batches/s  16 MiB batches/s  MB/s")
    for nodes in (1, 3, 10, 30, 100):
        actors = nodes * ACTORS_PER_NODE
        steps = actors * STEPS_PER_S
        busy = ACTORS_PER_NODE * STEPS_PER_S / EPISODE * costs.add
        small = simulate(costs, nodes, 64, 4)
        large = simulate(costs, nodes, 1024, 4)
        print(
            f"{nodes:5} {actors:7} {steps * ROW_BYTES / 1e6:11.0f} {busy:13.2%}"
            f" {small:16.0f} {large:17.1f} {large * 1024 * STEPS * ROW_BYTES / 1e6:6.0f}"
        )


if __name__ == "__main__":
    main()
