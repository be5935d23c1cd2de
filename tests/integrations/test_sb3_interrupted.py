"""An add to a buffer for Stable-Baselines3 that is interrupted, at every point where it can be."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from gymnasium import spaces

from shmtable.integrations.sb3 import ShmReplayBuffer
from tests.interrupts import cut_off


@pytest.mark.parametrize("n_steps", [1, 3])
def test_an_interrupt_in_an_add_leaves_only_true_steps(n_steps: int) -> None:
    observed, acted = spaces.Box(-10, 10, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float64)
    buffer = ShmReplayBuffer(200, observed, acted, n_envs=2, n_steps=n_steps)

    def add(episode: int, length: int) -> None:
        for step in range(length):
            now = np.array([[episode, step, env] for env in range(2)], np.float32)
            taken = np.full((2, 2), step)
            rewards = np.full(2, episode + step)
            buffer.add(
                now, now + [0, 1, 0], taken, rewards, np.full(2, step == length - 1), [{}] * 2
            )

    point, cut = 0, True
    while cut:
        point += 1
        buffer.reset()
        cut = cut_off(lambda: add(1, 3), point, ("/sb3.py", "/open_steps.py"), KeyboardInterrupt)
        add(2, 3)
        steps = []
        for sequence in map(buffer.table.sequence, buffer.table.identities().tolist()):
            actions = sequence["actions"][:, 0]
            obs = sequence["obs"][: len(actions)]
            rewards = sequence["rewards"].view(len(actions), -1)[:, 0]
            assert (obs[:, [0, 2]] == obs[0, [0, 2]]).all() and (obs[:, 1].diff() == 1).all()
            assert (rewards == obs[:, 0] + obs[:, 1]).all() and (actions == obs[:, 1]).all()
            steps += [tuple(row) for row in obs.tolist()]
        assert len(steps) == len(set(steps))
        assert {(2, step, env) for step in range(3) for env in range(2)} <= set(steps)
    assert point > 50
    buffer.close()
