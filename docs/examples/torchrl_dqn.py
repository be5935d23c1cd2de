"""A DQN of TorchRL on CartPole-v1, with prioritised replay out of a shared table.

Everything but the replay buffer is TorchRL's: environment, collector, loss and target network.
"""

from __future__ import annotations

import argparse
import sys

import torch
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, StepCounter, TransformedEnv
from torchrl.modules import EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

import shmtable as st
from shmtable.integrations.torchrl import TableReplayBuffer, columns_from_tensordict


def main(frames: int, goal: int) -> bool:
    torch.manual_seed(0)
    environment = TransformedEnv(GymEnv("CartPole-v1"), StepCounter())
    environment.set_seed(0)
    network = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2))
    actor = QValueActor(network, in_keys=["observation"], spec=environment.action_spec)
    explore = EGreedyModule(environment.action_spec, annealing_num_steps=frames // 2)
    policy = TensorDictSequential(actor, explore)

    collector = Collector(
        environment,
        policy,
        frames_per_batch=100,
        total_frames=frames,
        auto_register_policy_transforms=False,
    )
    loss = DQNLoss(actor, action_space="one-hot", delay_value=True)
    loss.make_value_estimator(gamma=0.99)
    update_target = HardUpdate(loss, value_network_update_interval=50)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-3)

    columns = columns_from_tensordict(
        environment.fake_tensordict(), leave_out=["action_value", "chosen_action_value"]
    )
    table = st.prioritized_replay(columns, maxlen=50_000, length_key="next.done")
    buffer = TableReplayBuffer(table, batch_size=128)
    longest = 0
    for number, data in enumerate(collector):
        buffer.extend(data)
        explore.step(data.numel())
        longest = max(longest, int(data["next", "step_count"].max()))
        if len(buffer) < 500:
            continue
        for _ in range(25):
            sample = buffer.sample()
            value = loss(sample)["loss"]
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            update_target.step()
            buffer.update_tensordict_priority(sample)
        if number % 20 == 0:
            print(f"{buffer.write_count} frames, loss {value.item():.3f}, longest {longest} steps")
    collector.shutdown()
    print(table)
    table.close()
    print(f"criterion: an episode of {goal} steps while learning; reached: {longest}")
    return longest >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--goal", type=int, default=400)
    options = parser.parse_args()
    sys.exit(not main(options.frames, options.goal))
