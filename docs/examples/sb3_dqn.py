"""Stable-Baselines3's DQN on CartPole-v1, its replay buffer in shared memory."""

from __future__ import annotations

import argparse
import sys

from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from shmtable.integrations.sb3 import ShmReplayBuffer


def main(steps: int, goal: float) -> bool:
    model = DQN(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=4),
        replay_buffer_class=ShmReplayBuffer,
        learning_rate=2.3e-3,
        buffer_size=100_000,
        learning_starts=1_000,
        batch_size=64,
        train_freq=64,
        gradient_steps=128,
        target_update_interval=10,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
    )
    model.learn(steps)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1"), n_eval_episodes=20)
    print(model.replay_buffer.table)
    model.replay_buffer.close()
    print(f"criterion: a return of {goal:g}, mean of 20 episodes; reached: {mean:.0f}")
    return mean >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--goal", type=float, default=195.0)
    options = parser.parse_args()
    sys.exit(not main(options.steps, options.goal))
