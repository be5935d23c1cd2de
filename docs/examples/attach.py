"""Two programs, one table: ``attach.py learn`` makes it, ``attach.py act`` attaches by its name.

Start them in two terminals, or as many actors as you like; without a word, the learner starts one.
Actors walk over a frozen lake at random, and the learner finds the shortest way across.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import gymnasium
import torch

import shmtable as st
from shmtable.integrations.gymnasium import columns_from_spaces

LAKE = gymnasium.make("FrozenLake-v1", is_slippery=False)


def walk(values: torch.Tensor | None, writer: st.Writer | None = None) -> int:
    """Greedily, or at random; how many steps it took to the shore, 0 if it did not get there."""
    (place, _), over, cut, steps = LAKE.reset(), False, False, 0
    while not (over or cut):
        action = LAKE.action_space.sample() if values is None else int(values[place].argmax())
        following, reward, over, cut, _ = LAKE.step(action)
        if writer is not None:
            writer.append(obs=place, actions=action, rewards=reward)
        place, steps = following, steps + 1
    if writer is not None:
        writer.end(obs=place, terminated=over, truncated=cut)
    return steps if reward else 0


def act(name: str) -> None:
    """Walks at random, until nobody learns from it any more."""
    # The learner's limiter holds adds back when it is behind, and for good when it is gone.
    with st.ArrayMemoryTable.attach(name) as table, table.writer(timeout_s=10) as writer:
        try:
            while True:
                walk(None, writer)
        except st.RateLimitedError:
            writer.drop()


def learn(name: str, alone: bool, updates: int, goal: int) -> bool:
    """Learns from whoever attaches; starts an actor itself if alone."""
    columns = columns_from_spaces(LAKE.observation_space, LAKE.action_space)
    pace = st.SampleToInsertRatio(4, min_size=500, error_buffer=4_000)
    values = torch.zeros(16, 4)
    with st.uniform_replay(columns, maxlen=100_000, name=name, limiter=pace) as table:
        print(f"waiting for actors: {sys.argv[0]} act --name {name}", flush=True)
        command = [sys.executable, __file__, "act", "--name", name]
        actor = subprocess.Popen(command) if alone else None
        for update in range(1, updates + 1):
            batch = table.sample(64, 1, timeout_s=60)
            best = values[batch["next_obs"]].max(1).values
            aim = batch["rewards"] + 0.95 * best * ~batch["terminated"]
            values[batch["obs"], batch["actions"]] = aim
            steps = walk(values) if update % 100 == 0 or update == updates else 0
            if 0 < steps <= goal:
                break
        if actor is not None:
            actor.terminate()
            actor.wait()
    print(f"criterion: at the shore within {goal} steps, after {update} updates; reached: {steps}")
    return 0 < steps <= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["learn", "act"])
    parser.add_argument("--name", default="frozen-lake")
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=int, default=6, help="steps to the other shore")
    given = parser.parse_args()
    if given.what == "act":
        act(given.name)
    else:
        sys.exit(not learn(given.name, given.what is None, given.updates, given.goal))
