"""Double DQN: the loss on numbers worked out by hand, and the shared network."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from shmtable.demo.agent import DISCOUNT, Agent, double_dqn_loss, greedy


class Values(nn.Module):
    """Action values by the first number of the observation."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.table[observations[..., 0].long()]


def one_step(*, terminated: bool) -> dict[str, torch.Tensor]:
    """From state 0, action 1, with reward 0.5, to state 1."""
    return {
        "obs": torch.tensor([[0.0, 0, 0, 0]]),
        "next_obs": torch.tensor([[1.0, 0, 0, 0]]),
        "actions": torch.tensor([1]),
        "rewards": torch.tensor([0.5]),
        "terminated": torch.tensor([terminated]),
    }


def test_the_network_chooses_and_the_target_values():
    network = Values([[0.0, 0.0], [2.0, 1.0]])  # prefers action 0 in state 1 ...
    target = Values([[0.0, 0.0], [0.3, 9.0]])  # ... which the target values at 0.3
    loss = double_dqn_loss(network, target, one_step(terminated=False))
    error = 0.5 + DISCOUNT * 0.3
    torch.testing.assert_close(loss, torch.tensor(0.5 * error**2))


def test_nothing_follows_a_real_end():
    network = Values([[0.0, 0.0], [2.0, 1.0]])
    target = Values([[0.0, 0.0], [50.0, 50.0]])
    loss = double_dqn_loss(network, target, one_step(terminated=True))
    torch.testing.assert_close(loss, torch.tensor(0.5 * 0.5**2))


def test_only_the_value_of_the_action_taken_is_moved():
    network = Values([[0.0, 0.0], [2.0, 1.0]])
    double_dqn_loss(network, Values([[0.0] * 2] * 2), one_step(terminated=False)).backward()
    gradient = network.table.grad
    assert gradient is not None
    assert gradient[0, 1] < 0
    assert gradient.count_nonzero() == 1


def test_greedy_takes_one_observation_or_many():
    network = Values([[0.0, 1.0], [2.0, 1.0]])
    observations = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.float32)
    assert greedy(network, observations).tolist() == [1, 0]
    assert int(greedy(network, observations[0])) == 1


def test_updates_happen_in_shared_memory_and_the_target_follows_slowly():
    agent = Agent(learning_rate=0.01)
    places = [parameter.data_ptr() for parameter in agent.network.parameters()]
    before = [parameter.clone() for parameter in agent.target.parameters()]
    for _ in range(3):
        # An observation of zeros would leave the first weights as they are.
        agent.update({**one_step(terminated=True), "obs": torch.ones(1, 4)})
    assert [parameter.data_ptr() for parameter in agent.network.parameters()] == places
    assert all(parameter.is_shared() for parameter in agent.network.parameters())
    moved = [
        (old - slow).norm() < (old - fast).norm()
        for old, slow, fast in zip(
            before, agent.target.parameters(), agent.network.parameters(), strict=True
        )
    ]
    assert all(moved)


def test_it_learns_what_it_is_shown():
    torch.manual_seed(0)
    agent = Agent(learning_rate=0.01)
    batch = one_step(terminated=True)
    for _ in range(200):
        agent.update(batch)
    assert abs(agent.network(batch["obs"])[0, 1].item() - 0.5) < 0.05
