"""Many small tensors on their way to a device, in one piece: each transfer has its price."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shmtable.columns.backend import Backend

# Each part begins where any dtype may.
PART_ALIGNMENT = 16


def sent_together(tensors: Sequence[Tensor], backend: Backend) -> list[Tensor]:
    """Copies of the CPU's tensors on a device, sent in one piece."""
    if not tensors:
        return []
    offsets, size = [], 0
    for tensor in tensors:
        offsets.append(size)
        size += -(-tensor.numel() * tensor.element_size() // PART_ALIGNMENT) * PART_ALIGNMENT
    host = backend.staging(size)
    for tensor, part in zip(tensors, _parts(host, offsets, tensors), strict=True):
        part.copy_(tensor)
    return _parts(backend.send(host), offsets, tensors)


def _parts(memory: Tensor, offsets: Sequence[int], like: Sequence[Tensor]) -> list[Tensor]:
    return [
        memory[offset : offset + tensor.numel() * tensor.element_size()]
        .view(tensor.dtype)
        .view(tensor.shape)
        for offset, tensor in zip(offsets, like, strict=True)
    ]
