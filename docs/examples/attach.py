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

SHORTEST = 6  # steps to the other shore


def act(name: str) -> None:
    """Walks at random, until nobody learns from it any more."""
    lake = gymnasium.make("FrozenLake-v1", is_slippery=False)
    # The learner's limiter holds adds back when it is behind, and for good when it is gone.
    with st.ArrayMemoryTable.attach(name) as table, table.writer(timeout_s=10) as writer:
        try:
            while True:
                (place, _), over, cut = lake.reset(), False, False
                while not (over or cut):
                    action = lake.action_space.sample()
                    following, reward, over, cut, _ = lake.step(action)
                    writer.append(obs=place, actions=action, rewards=reward)
                    place = following
                writer.end(obs=place, terminated=over, truncated=cut)
        except st.RateLimitedError:
            writer.drop()


def steps_to_shore(values: torch.Tensor) -> int:
    """Of the greedy policy; 0 if it does not get there."""
    with gymnasium.make("FrozenLake-v1", is_slippery=False) as lake:
        place, _ = lake.reset()
        for step in range(1, 101):
            place, reward, over, _, _ = lake.step(int(values[place].argmax()))
            if over:
                return step if reward else 0
    return 0


def learn(name: str, alone: bool, updates: int, goal: int) -> bool:
    """Learns from whoever attaches; starts an actor itself if alone."""
    columns = [
        st.Column("obs", (), "int64"),
        st.Column("actions", (), "int64"),
        st.Column("rewards", (), "float32"),
        st.Column("terminated", (), "bool"),
        st.VirtualColumn("next_obs", (), "int64", "obs", st.NextElementMapper),
    ]
    pace = st.SampleToInsertRatio(4, min_size=500, error_buffer=4_000)
    values = torch.zeros(16, 4)
    with st.uniform_replay(columns, maxlen=100_000, name=name, limiter=pace) as table:
        print(f"waiting for actors: {sys.argv[0]} act --name {name}", flush=True)
        actor = (
            subprocess.Popen([sys.executable, __file__, "act", "--name", name]) if alone else None
        )
        for update in range(1, updates + 1):
            batch = table.sample(64, 1, timeout_s=60)
            best = values[batch["next_obs"]].max(1).values
            aim = batch["rewards"] + 0.95 * best * ~batch["terminated"]
            values[batch["obs"], batch["actions"]] = aim
            steps = steps_to_shore(values) if update % 100 == 0 or update == updates else 0
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
    parser.add_argument("--goal", type=int, default=SHORTEST)
    options = parser.parse_args()
    if options.what == "act":
        act(options.name)
    else:
        alone = options.what is None
        sys.exit(not learn(options.name, alone, options.updates, options.goal))
