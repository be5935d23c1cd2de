"""``python -m shmtable.demo.on_ray``: CartPole-v1 over three nodes, one of which is lost.

The nodes are simulated on this machine. On each of them a collector plays, and adds its episodes
to the shard of its own node; a learner samples all shards. In the middle of the training one node
is switched off with all that it has: the others go on, and the pole stays up in the end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from shmtable import (
    Column,
    FifoEjectionStrategy,
    MissingExtraError,
    NextElementMapper,
    UniformSampleStrategy,
    VirtualColumn,
)
from shmtable.demo.extras import require_extras
from shmtable.integrations.needed import needed

BATCH, RATIO, WARMUP = 128, 32.0, 1000
EPISODES = 4  # a collector plays so many, and then asks for the newest network
EXPLORATION, LEAST_EPSILON = 10_000, 0.02
EVALUATE_EVERY, EVALUATION_EPISODES = 500, 20
LEARNING_RATE = 5e-4
PATIENCE_S = 60.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What can be chosen."""
    parser = argparse.ArgumentParser(prog="python -m shmtable.demo.on_ray", description=__doc__)
    parser.add_argument("--nodes", type=int, default=3, help="simulated nodes (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another run")
    parser.add_argument(
        "--lose-at", type=int, default=2000, help="updates after which a node is lost; 0 for never"
    )
    parser.add_argument(
        "--threshold", type=float, default=475.0, help="mean return that counts as solved"
    )
    parser.add_argument("--time-limit", type=float, default=570.0, help="give up after (seconds)")
    return parser.parse_args(arguments)


class Collector:
    """Plays on one node; an actor's class."""

    def __init__(self, table: Any, index: int, collectors: int, seed: int) -> None:
        from shmtable.demo.agent import make_network
        from shmtable.demo.environment import make_environment

        torch.set_num_threads(1)
        self._table = table
        self._identities = itertools.count(index, collectors)
        self._random = np.random.default_rng([seed, index])
        self._environment = make_environment()
        self._environment.reset(seed=int(self._random.integers(2**31)))
        self._network = make_network()

    def pid(self) -> int:
        """The actor's process."""
        return os.getpid()

    def play(self, weights: dict[str, Any], epsilon: float) -> list[int]:
        """Play some episodes with this network, and add each; their lengths."""
        from shmtable.demo.actor import choose
        from shmtable.demo.environment import play

        self._network.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
        lengths = []
        for _ in range(EPISODES):
            chosen = partial(choose, self._network, self._random, epsilon)
            episode = play(self._environment, chosen)
            self._table.add_sequence(next(self._identities), episode.sequence)
            lengths.append(len(episode))
        return lengths


def make_table(seed: int) -> Any:
    """A shard of CartPole transitions on every node; see ``replay`` for the columns."""
    from shmtable.demo.environment import OBSERVATION_SHAPE
    from shmtable.integrations.ray import DistributedMemoryTable

    return DistributedMemoryTable(
        Column("obs", OBSERVATION_SHAPE, "float32"),
        VirtualColumn("next_obs", OBSERVATION_SHAPE, "float32", "obs", NextElementMapper),
        Column("actions", (), "int64"),
        Column("rewards", (), "float32"),
        Column("terminated", (), "bool"),
        name=f"cartpole-{os.getpid()}",
        maxlen=20_000,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
        seed=seed,
    )


class Run:
    """The learner, and what it knows of its collectors."""

    def __init__(self, options: argparse.Namespace, nodes: Any, table: Any) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from shmtable.demo.agent import Agent

        self._ray, self._options, self._nodes, self._table = ray, options, nodes, table
        self._agent = Agent(LEARNING_RATE)
        self._batches = table.batches(BATCH, 1, ahead=8, timeout_s=PATIENCE_S)
        self._seeds = np.random.default_rng([options.seed, options.nodes])
        self._collectors = {
            node: ray.remote(Collector)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, False))
            .remote(table, index, options.nodes, options.seed)
            for index, node in enumerate(nodes.ids)
        }
        self._pids = {node: ray.get(one.pid.remote()) for node, one in self._collectors.items()}
        self._playing: dict[Any, str] = {}
        self._lengths: list[int] = []
        self.added = self.updates = 0

    def train(self) -> bool:
        """Learn until the pole stays up; whether it does in time."""
        ends = time.monotonic() + self._options.time_limit
        while time.monotonic() < ends:
            self._collect()
            if self.added < WARMUP or (self.updates + 1) * BATCH > self.added * RATIO:
                self._ray.wait(list(self._playing), timeout=0.1)
                continue
            self._agent.update(next(self._batches))
            self.updates += 1
            if self.updates == self._options.lose_at:
                self._lose_a_node()
            if self.updates % EVALUATE_EVERY == 0 and self._is_good_enough():
                return True
        return False

    def _collect(self) -> None:
        """Hear of the episodes that were played, and let those play who do not."""
        done, _ = self._ray.wait(list(self._playing), timeout=0) if self._playing else ([], [])
        for answer in done:
            node = self._playing.pop(answer)
            try:
                lengths = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                del self._collectors[node]
                print(f"the collector of node {node[:8]} is lost, {len(self._collectors)} are left")
                continue
            self.added += sum(lengths)
            self._lengths += lengths
        idle = [node for node in self._collectors if node not in self._playing.values()]
        if idle and (self.added - WARMUP) * RATIO < self.updates * BATCH + 500 * RATIO:
            weights = {k: v.numpy().copy() for k, v in self._agent.network.state_dict().items()}
            sent = self._ray.put(weights)
            epsilon = max(1.0 - self.added / EXPLORATION, LEAST_EPSILON)
            for node in idle:
                self._playing[self._collectors[node].play.remote(sent, epsilon)] = node

    def _is_good_enough(self) -> bool:
        from shmtable.demo.agent import greedy
        from shmtable.demo.environment import evaluate

        reached = evaluate(
            lambda seen: greedy(self._agent.network, seen),
            EVALUATION_EPISODES,
            seed=int(self._seeds.integers(2**31)),
        )
        stats = self._table.stats()
        print(
            f"update {self.updates}: mean return {reached:.0f}; {stats.transitions} transitions in "
            f"{len(stats.shards)} shards, last episodes {np.mean(self._lengths[-20:]):.0f} steps",
            flush=True,
        )
        return bool(reached >= self._options.threshold)

    def _lose_a_node(self) -> None:
        """Switch off a node that this process is not on."""
        here = self._ray.get_runtime_context().get_node_id()
        node = next(one for one in self._collectors if one != here)
        held = {shard.node: shard.stats for shard in self._table.stats().shards}[node]
        shard = next(actor for _, at, _, _, actor in self._table._states() if at == node)
        self._nodes.lose(node, self._ray.get(shard.pid.remote()), self._pids[node])
        transitions = 0 if held is None else held.transitions
        print(f"node {node[:8]} is switched off, with {transitions} transitions", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when the pole stays up."""
    options = parse(arguments)
    try:
        require_extras()
        with needed("ray", extra="ray"):
            from shmtable.demo.nodes import SimulatedNodes
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    with SimulatedNodes(options.nodes) as nodes, make_table(options.seed) as table:
        run = Run(options, nodes, table)
        began = time.monotonic()
        solved = run.train()
        lost = table.stats().shards_lost
    took = time.monotonic() - began
    print(
        f"{'solved' if solved else 'not solved'} after {run.updates} updates and {run.added} "
        f"transitions, in {took:.0f} s; shards lost: {lost}"
    )
    return 0 if solved else 1


# Spawned workers import this module again under another name; they must not run it.
if __name__ == "__main__":
    # As the module that workers can import, and not as the program's own.
    from shmtable.demo import on_ray

    sys.exit(on_ray.main())
