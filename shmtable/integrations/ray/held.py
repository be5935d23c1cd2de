"""What a process holds of a distributed table: its name, and what it has found under it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from shmtable.adaptors import Adaptor
from shmtable.columns import Column
from shmtable.errors import ArenaNotFoundError, ClosedError, SpecError
from shmtable.integrations.needed import needed
from shmtable.integrations.ray.keeper import NAMESPACE, actor_name, told
from shmtable.integrations.ray.local import Local
from shmtable.integrations.ray.sampling import Sampling
from shmtable.limiters import Limiter
from shmtable.protocols.arguments import as_adaptors, as_device
from shmtable.shm import places
from shmtable.table import ArrayMemoryTable

with needed("ray", extra="ray"):
    import ray
    from ray.exceptions import RayError

T = TypeVar("T", bound="Held")

READY_S = 60.0
# Nobody keeps one of the keeper's threads for longer: others have questions, too.
SLICE_S = 1.0
_EXAMINE_S = 20.0
_MOST_NAME = 40  # of a table's 100: the rest says which shard


class Held:
    """One process's hold on a distributed table, whatever is done with its content."""

    adaptors: list[Adaptor]
    device: torch.device

    @classmethod
    def attach(
        cls: type[T],
        name: str,
        *,
        deadline_s: float = 2.0,
        adaptors: Adaptor | list[Adaptor] | None = None,
        device: torch.device | str | None = None,
    ) -> T:
        """Use a distributed table that another program on this cluster has made.

        Args:
            name: as given at creation.
            deadline_s: as at creation, for samples drawn through this object.
            adaptors: for these samples.
            device: where they are delivered; the CPU if None.

        Raises:
            SpecError: the name cannot be one, or this process is in no Ray cluster.
            ArenaNotFoundError: no such table.
        """
        table = cls.__new__(cls)
        table._hold(name, adaptors, device, deadline_s)
        table._keeper()
        return table

    def _hold(
        self,
        name: str,
        adaptors: Any,
        device: torch.device | str | None,
        deadline_s: float,
    ) -> None:
        places.path_of(name, None)
        if len(name) > _MOST_NAME:
            raise SpecError(f"name {name!r} has {len(name)} letters; give at most {_MOST_NAME}")
        if not deadline_s > 0:
            raise SpecError(f"deadline_s is {deadline_s!r}; give more than 0")
        self.name = name
        self.adaptors = as_adaptors(adaptors)
        self.device = as_device(device or "cpu")
        self._deadline_s = float(deadline_s)
        self._owner = 0
        self._closed = False
        self._keeper_: Any = None
        self._about_: dict[str, Any] | None = None
        self._sampling_: Sampling | None = None
        self._local_: Local | None = None
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that gets it asks for nothing until it uses it.
        return _arrived, (type(self), self.name, self.adaptors, str(self.device), self._deadline_s)

    # -- its parts, each made when it is first needed ---------------------------------------

    def _keeper(self) -> Any:
        if self._closed:
            raise ClosedError("the table is closed; make or attach it again to use it")
        if self._keeper_ is None:
            node()
            try:
                self._keeper_ = ray.get_actor(actor_name(self.name), NAMESPACE)
            except ValueError as error:
                raise ArenaNotFoundError(
                    f"no distributed table {self.name!r} on this cluster; it is made by "
                    "DistributedMemoryTable(..., name=...), and ends with the program that made it "
                    "unless detached=True",
                    name=self.name,
                ) from error
        return self._keeper_

    def _about(self, what: str) -> Any:
        if self._about_ is None:
            self._about_ = told(self._keeper().about.remote())
        return self._about_[what]

    def _sampling(self) -> Sampling:
        sampling = self._sampling_
        if sampling is None or self._closed:
            with self._lock:
                sampling = self._sampling_ = self._sampling_ or Sampling(
                    self._keeper(), self.columns, self._deadline_s
                )
        return sampling

    def _local(self, identity: int = 0) -> ArrayMemoryTable:
        return self._here().table(identity)

    def _here(self) -> Local:
        local = self._local_
        if local is None or self._closed:
            with self._lock:
                keeper, here = self._keeper(), node()
                local = self._local_ = self._local_ or Local(
                    lambda: told(keeper.on_node.remote(here, SLICE_S)),
                    self._about("classes"),
                    self._report,
                )
        return local

    def _report(self, names: Sequence[str]) -> None:
        """Let shards look whether they are damaged, and wait for those that end because of it."""
        states = told(self._keeper().states.remote())
        asked = [
            actor.examine.remote() for name, _, _, _, actor in states if actor and name in names
        ]
        for answer in asked:
            with suppress(RayError):  # it has ended, or its table is such that it cannot answer
                ray.get(answer, timeout=_EXAMINE_S)

    # -- life ------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in declared order."""
        found: tuple[Column, ...] = self._about("columns")
        return found

    @property
    def length_key(self) -> str:
        """The column whose rows say how many transitions a sequence has."""
        return str(self._about("length_key"))

    @property
    def layout(self) -> str:
        """The shape of its samples, "flat" or "batch_time"."""
        return str(self._about("layout"))

    @property
    def limiter(self) -> Limiter | None:
        """When adds and samples may proceed, over all shards together; None for always."""
        found: Limiter | None = self._about("limiter")
        return found

    @property
    def keeps_priorities(self) -> bool:
        """Whether ``update_priorities`` is of use."""
        return bool(self._about("keeps_priorities"))

    def close(self) -> None:
        """Let go of the table; where it was made, also ``end`` it. Safe to call twice."""
        if self._closed:
            return
        if self._owner == os.getpid():
            self.end()
            atexit.unregister(self.close)
        self._closed = True
        local, self._local_, self._sampling_, self._keeper_ = self._local_, None, None, None
        if local is not None:
            local.close()

    def end(self) -> None:
        """End the table for everybody, with all that it holds."""
        if self._closed or not ray.is_initialized():
            return
        with suppress(RayError, ArenaNotFoundError):
            keeper = self._keeper()
            ray.get(keeper.close.remote(), timeout=READY_S)
            ray.kill(keeper)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _arrived(cls: type[T], name: str, adaptors: list[Adaptor], device: str, deadline_s: float) -> T:
    held = cls.__new__(cls)
    held._hold(name, adaptors, device, deadline_s)
    return held


def node() -> str:
    """Ray's id of the node that this process runs on.

    Raises:
        SpecError: it is in no Ray cluster.
    """
    if not ray.is_initialized():
        raise SpecError("this process is in no Ray cluster; call ray.init() first")
    return str(ray.get_runtime_context().get_node_id())
