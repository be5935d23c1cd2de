"""Do DQN and SAC learn with the shared buffer as with their own? Same seeds, side by side.

``python -m tests.integrations.learning --output FILE.json --picture FILE.svg`` takes an hour. Each
run is evaluated on environments of its own, with the deterministic policy, at regular intervals;
the picture has a thin line per seed and a thick one for their mean. The figures are written after
every run, and a run that the file has already is not made again: what was stopped goes on, and more
seeds can be added.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from shmtable.integrations.sb3 import ShmReplayBuffer

BUFFERS: dict[str, type[ReplayBuffer]] = {"own": ReplayBuffer, "shared": ShmReplayBuffer}
POINTS = 10
# As RL Baselines3 Zoo has it for these environments, but for SAC's steps and learning_starts.
TASKS: dict[str, dict[str, Any]] = {
    "DQN CartPole-v1": {
        "algorithm": DQN,
        "environment": "CartPole-v1",
        "steps": 50_000,
        "seeds": 8,
        "options": {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    },
    "SAC Pendulum-v1": {
        "algorithm": SAC,
        "environment": "Pendulum-v1",
        "steps": 6_000,
        "seeds": 3,
        "options": {"learning_rate": 1e-3, "learning_starts": 500},
    },
}


def curve(task: dict[str, Any], buffer: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains once.

    Returns:
        {"returns": [POINTS], mean returns of 10 episodes at equal intervals,
        "train_s": seconds that the training took, without the evaluations}
    """
    evaluation = make_vec_env(task["environment"], 1, seed=1000 + seed)
    model = task["algorithm"](
        "MlpPolicy",
        make_vec_env(task["environment"], 1, seed=seed),
        replay_buffer_class=BUFFERS[buffer],
        seed=seed,
        device="cpu",
        **task["options"],
    )
    watch = _Watch(evaluation, steps // POINTS)
    begun = time.perf_counter()
    model.learn(steps, callback=watch)
    train_s = time.perf_counter() - begun - watch.spent_s
    if isinstance(model.replay_buffer, ShmReplayBuffer):
        model.replay_buffer.close()
    return {"returns": watch.returns[:POINTS], "train_s": train_s}


class _Watch(BaseCallback):
    """Evaluates every so many steps."""

    def __init__(self, environments: VecEnv, every: int) -> None:
        super().__init__()
        self.environments, self.every = environments, every
        self.returns: list[float] = []
        self.spent_s = 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            begun = time.perf_counter()
            mean, _ = evaluate_policy(self.model, self.environments, n_eval_episodes=10)
            self.returns.append(float(mean))  # type: ignore[arg-type]
            self.spent_s += time.perf_counter() - begun
        return True


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """The means over seeds, as lines of text."""
    lines = []
    for name, buffers in found.items():
        for buffer, runs in buffers.items():
            means = np.mean([run["returns"] for run in runs], 0)
            train_s = np.mean([run["train_s"] for run in runs])
            values = " ".join(f"{mean:8.1f}" for mean in means)
            lines.append(f"{name:16} {buffer:7} {values}   {train_s:5.1f} s")
    return "\n".join(lines)


def differences(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Shared less own, over the second half of training and at its end, seed by seed."""
    lines = []
    for name, buffers in found.items():
        for buffer, runs in buffers.items():
            last = np.array([run["returns"][-1] for run in runs])
            lines.append(f"{name} {buffer}: at the end {last.mean():.0f} ({last.std():.0f})")
        own, shared = (
            np.array([np.mean(run["returns"][POINTS // 2 :]) for run in buffers[buffer]])
            for buffer in ("own", "shared")
        )
        gaps = shared - own
        error = gaps.std(ddof=1) / len(gaps) ** 0.5 if len(gaps) > 1 else np.nan
        lines.append(
            f"{name}: own {own.mean():.0f} ({own.std():.0f} from seed to seed), shared "
            f"{shared.mean():.0f} ({shared.std():.0f}); difference {gaps.mean():.0f}, standard "
            f"error {error:.0f}, of {len(gaps)} seeds"
        )
    return "\n".join(lines)


def draw(found: dict[str, dict[str, list[dict[str, Any]]]], path: str) -> None:
    """The curves, one panel per task."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(5 * len(found), 3.5))
    for panel, (name, buffers) in zip(np.atleast_1d(panels), found.items(), strict=True):
        for buffer, style in (("own", "C0--"), ("shared", "C1-")):
            at = np.linspace(0, TASKS[name]["steps"], POINTS + 1)[1:]
            for run in buffers[buffer]:
                panel.plot(at, run["returns"], style, alpha=0.25)
            means = np.mean([run["returns"] for run in buffers[buffer]], 0)
            panel.plot(at, means, style, linewidth=2.5, label=f"{buffer} buffer")
        panel.set_title(name)
        panel.set_xlabel("steps")
        panel.set_ylabel("return")
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Parses the arguments, trains everything, shows and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="for each of them; usually 8 for DQN, 3 for SAC")
    parser.add_argument("--only", choices=TASKS, help="leave the other one out")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of steps")
    parser.add_argument("--output", help="a JSON file for the figures; begun or to be continued")
    parser.add_argument("--picture", help="a file for the curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    if options.output and Path(options.output).exists():
        found = json.loads(Path(options.output).read_text())
    for name, task in TASKS.items():
        if options.only not in (None, name):
            continue
        runs = found.setdefault(name, {buffer: [] for buffer in BUFFERS})
        for seed in range(options.seeds or task["seeds"]):
            for buffer in BUFFERS:
                if seed < len(runs[buffer]):
                    continue
                run = curve(task, buffer, seed, int(task["steps"] * options.share))
                runs[buffer].append(run)
                print(name, buffer, seed, [round(one, 1) for one in run["returns"]], flush=True)
                if options.output:
                    Path(options.output).write_text(json.dumps(found, indent=1))
    print(table(found))
    print(differences(found))
    if options.picture:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
