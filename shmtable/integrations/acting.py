"""A policy, as it is asked for actions in vector environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from shmtable.errors import SequenceError
from shmtable.integrations.needed import needed
from shmtable.types import BoolArray

with needed("gymnasium", extra="gymnasium"):
    from gymnasium import spaces
    from gymnasium.vector import VectorEnv

#: Observations of all environments of a worker in; their actions out, or a pair of actions and
#: columns.
Policy = Callable[[Any], Any]


class Acting:
    """Asks a policy for actions, without gradients, and tells it of episodes that begin.

    Args:
        environments: it acts in.
        policy: see :class:`Collector`; None for random actions.
        own: the columns that it has to fill.
    """

    def __init__(
        self,
        environments: VectorEnv[Any, Any, Any],
        policy: Policy | None,
        own: tuple[str, ...],
    ) -> None:
        self._environments = environments
        self._policy = policy
        self._reset = getattr(policy, "reset", None)
        self._own = own

    @torch.no_grad()
    def __call__(self, observations: Any, begun: BoolArray) -> tuple[Any, Mapping[str, Any]]:
        """Actions and columns of all environments.

        Args:
            observations: of all environments.
            begun: bool [N], which of them are the first of an episode.

        Raises:
            SequenceError: columns where there are none, or none where there are some.
        """
        if self._policy is None:
            return self._environments.action_space.sample(), {}
        if self._reset is not None and begun.any():
            self._reset(begun)
        actions, columns = self._parted(self._policy(observations))
        return actions.cpu().numpy() if isinstance(actions, Tensor) else actions, columns

    def _parted(self, answer: Any) -> tuple[Any, Mapping[str, Any]]:
        # Actions of a Tuple space may look like a pair of actions and columns.
        alike = isinstance(self._environments.single_action_space, spaces.Tuple)
        if isinstance(answer, tuple) and len(answer) == 2 and (self._own or not alike):
            actions, columns = answer
            if isinstance(columns, Mapping):
                return actions, columns
        if self._own:
            raise SequenceError(
                f"column '{self._own[0]}': no environment fills it, and the policy returned "
                f"actions only ({type(answer).__name__}); have it return "
                f"(actions, {{'{self._own[0]}': values}}), or leave the column out of the table",
                column=self._own[0],
            )
        return answer, {}
