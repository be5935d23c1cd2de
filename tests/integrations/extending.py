"""What another process does with a buffer; apart from the tests, which import far more."""

from __future__ import annotations

from tensordict import TensorDict

from shmtable.integrations.torchrl import TableReplayBuffer


def extend(buffer: TableReplayBuffer, batch: TensorDict) -> int:
    """Extends it and samples."""
    buffer.extend(batch)
    return len(buffer.sample(64))
