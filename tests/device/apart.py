"""A stand-in whose tensors cannot be mistaken for the CPU's, as those of a device cannot.

Memory of the CPU behind a device's interface has one weakness: what forgets to bring one operand
to the other works there, and fails on a device. Here it fails too, and so does whatever would make
the CPU wait in the midst of a sample: to look at a value, or to learn how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from shmtable.columns import Backend, Handle
from shmtable.errors import DeviceMemoryError

_FAR = torch.device("meta")
_aten = torch.ops.aten
_COPIES = {_aten.copy_.default, _aten._to_copy.default}
# Each of them ends with a look at the result by the CPU.
_LOOKS = {
    "_local_scalar_dense",
    "_unique2",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_dim",
}
# What every supported torch can do on a CUDA device with these (`carrier`, and what has none).
_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_KNOWN = _INTEGERS | _FLOATS | {torch.complex64, torch.complex128}
# These move bits or rename them, and are there for all dtypes.
_BITS = {"_to_copy", "alias", "as_strided", "clone", "copy_", "detach", "empty_like", "expand"}
_BITS |= {"permute", "select", "slice", "squeeze", "transpose", "unsqueeze", "view", "_unsafe_view"}


class Far(torch.Tensor):
    """A tensor that is not the CPU's.

    Attributes:
        near: what it really is.
    """

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=_FAR,
        )

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.near})"

    def numpy(self, *, force: bool = False) -> Any:
        """As of any tensor of a device, only by force."""
        if not force:
            raise TypeError("these are not the CPU's numbers")
        return self.near.numpy(force=True)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        given = [one for one in _pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        strangers = [one for one in given if not isinstance(one, Far) and one.dim()]
        if strangers and func not in _COPIES:
            raise RuntimeError(f"{func}: {strangers[0]} is the CPU's, the rest is not")
        if name in _LOOKS or (name == "index" and any(i.dtype == torch.bool for i in given[1:])):
            raise RuntimeError(f"{func}: the CPU would wait for its result")
        if name not in _BITS and any(one.dtype not in _KNOWN for one in given):
            raise RuntimeError(f"{func}: not for {[one.dtype for one in given]} on every device")
        brought = "device" in kwargs and torch.device(kwargs["device"]).type == "cpu"
        if kwargs.get("device") is not None and not brought:
            kwargs["device"] = torch.device("cpu")
        plain = _pytree.tree_map_only(Far, lambda one: one.near, (args, kwargs))
        found = func(*plain[0], **plain[1])
        if brought:
            return found.clone() if found is args[0].near else found
        if args and isinstance(args[0], Tensor) and func._schema.is_mutable:
            return args[0]
        return _pytree.tree_map_only(Tensor, Far, found)


class ApartBackend(Backend):
    """A device of such tensors, in this process only.

    Attributes:
        sent: bytes of each transfer to it.
    """

    device = _FAR
    forks = True

    def __init__(self) -> None:
        self.sent: list[int] = []

    def allocate(self, size: int) -> Tensor:
        return Far(torch.zeros(size, dtype=torch.uint8))

    def export(self, memory: Tensor) -> Handle:
        raise DeviceMemoryError("this device cannot hand on its memory", device=str(_FAR))

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    @contextmanager
    def working(self, after_caller: bool = False) -> Iterator[list[Tensor]]:
        results: list[Tensor] = []
        yield results
        assert all(isinstance(result, Far) for result in results)

    def settle(self) -> None:
        """Nothing is ever under way."""

    def has(self, tensor: Tensor) -> bool:
        return isinstance(tensor, Far)

    def copy(self, target: Tensor, source: Tensor) -> None:
        assert isinstance(target, Far) or isinstance(source, Far)
        target.copy_(source)

    def send(self, source: Tensor) -> Tensor:
        assert not isinstance(source, Far)
        self.sent.append(len(source))
        return Far(source.clone())

    def select(self, rows: Tensor, index: Tensor) -> Tensor:
        return torch.index_select(rows, 0, index)

    def scatter(self, rows: Tensor, index: Tensor, values: Tensor) -> None:
        rows.index_copy_(0, index, values)
