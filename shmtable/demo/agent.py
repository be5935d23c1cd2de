"""Double DQN, the small way: two networks, one loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shmtable.demo.environment import ACTIONS, OBSERVATION_SHAPE, Observation

HIDDEN = 128
DISCOUNT = 0.99
TARGET_RATE = 0.01  # share of the way the target network follows, per update
LARGEST_GRADIENT = 10.0


def make_network() -> nn.Module:
    """Values of the actions: observations float32 [B, 4] to float32 [B, 2]."""
    return nn.Sequential(
        nn.Linear(OBSERVATION_SHAPE[0], HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, ACTIONS),
    )


@torch.inference_mode()
def greedy(network: nn.Module, observations: Observation) -> npt.NDArray[np.int64]:
    """The best actions, int64 [N], for observations [N, 4]."""
    actions: npt.NDArray[np.int64] = network(torch.from_numpy(observations)).argmax(-1).numpy()
    return actions


class Agent:
    """A value network and what it takes to train it.

    Attributes:
        network: its parameters lie in shared memory and are updated in place, so every process
            that was given the network plays with the newest values without being told.
        target: a slower copy that the network learns from.
    """

    def __init__(self, learning_rate: float) -> None:
        self.network = make_network().share_memory()
        self.target = make_network()
        self.target.load_state_dict(self.network.state_dict())
        parameters = self.network.parameters()
        self._optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)

    def update(self, batch: Mapping[str, Tensor]) -> None:
        """One gradient step on a sample of the table (B transitions)."""
        loss = double_dqn_loss(self.network, self.target, batch)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        pairs = zip(self.target.parameters(), self.network.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, TARGET_RATE)


def double_dqn_loss(network: nn.Module, target: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Scalar loss (van Hasselt et al., 2016, "Deep Reinforcement Learning with Double Q-learning").

    The network chooses the next action and the target network says what it is worth: one that
    did both would believe its own overestimates.
    """
    with torch.no_grad():
        best = network(batch["next_obs"]).argmax(-1, keepdim=True)
        future = target(batch["next_obs"]).gather(-1, best).squeeze(-1)
        # Nothing follows a fallen pole. After a time limit something would have: see pack().
        goal = batch["rewards"] + DISCOUNT * future * ~batch["terminated"]
    values = network(batch["obs"]).gather(-1, batch["actions"].unsqueeze(-1)).squeeze(-1)
    return nn.functional.smooth_l1_loss(values, goal)
