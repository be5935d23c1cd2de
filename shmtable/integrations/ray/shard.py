"""One shard: an ordinary named table, and the actor on its node that answers for it.

Whoever adds does not come by here: processes of the node attach the table by its name and write
into its memory. The actor draws samples for learners elsewhere, and holds the name.

The table outlives the actor's process, as any named table outlives those that use it. So an actor
that has died and is started again on its node first looks for the table and goes on with it: then
nothing is lost, and no writer notices. Only where it is gone, or is no sound table any more, a new
one takes its name, and a writer that still has the old one open finds another file under it.

An actor that finds its own table gone or damaged takes its name away and ends: what is mapped there
is not to be trusted with anything, and whoever has asked is served as by any shard that has died.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch

from shmtable.errors import (
    ArenaError,
    ArenaNotFoundError,
    EmptyTableError,
    NoWindowError,
    SpecError,
    TableFileError,
)
from shmtable.formats import inspect
from shmtable.integrations.ray import damage
from shmtable.integrations.ray.local import is_current
from shmtable.integrations.ray.manifest import fingerprint, refuse_changed, remove
from shmtable.integrations.ray.offers import Offers, innermost, make_absolute
from shmtable.integrations.ray.values import Part
from shmtable.protocols.pace import Grant
from shmtable.shm import files, leftovers, places
from shmtable.strategies import PrioritizedSampleStrategy
from shmtable.table import ArrayMemoryTable
from shmtable.types import Finding, Int64Array, SamplePoints, Stats

_LOGGER = logging.getLogger("shmtable")
_MOST = 1 << 40
_FIELDS = ("slots", "offsets", "generations", "identities", "starts", "lengths")

Method = TypeVar("Method", bound=Callable[..., Any])


def _using(method: Method) -> Method:
    """For a method that uses the table: whatever it raises, the table may be the reason."""

    @wraps(method)
    def used(shard: Shard, *given: Any) -> Any:
        try:
            return method(shard, *given)
        except Exception as error:
            if wrong := damage.behind(error, shard._table):
                shard._begin_anew(wrong)
            raise

    return cast("Method", used)


class Shard:
    """Answers for one table; an actor's class, whose calls come in several threads.

    Args:
        name: of the table.
        options: of ``ArrayMemoryTable``, to make it with.
        leftovers_of: names of tables whose nodes are lost. Where simulated nodes share a machine,
            or a node has come back to its machine, their memory is still there.
        path: of a file to begin with, without its suffix, if the table has to be made.
        last: gives a later one, if there is any: an actor that Ray starts again gets what the first
            one got.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        leftovers_of: Iterable[str] = (),
        path: str | None = None,
        last: Callable[[], str | None] | None = None,
    ) -> None:
        for lost in leftovers_of:
            drop(lost)
        self._name, self._options, self._closed = name, options, False
        self._ending, self._storing = threading.Lock(), threading.Lock()
        adopted = _adopted(name, options["classes"])
        self._table = adopted or _made(name, options, (last and last()) or path)
        core = self._table._core
        self._sampler = core.sampler
        self._offers = Offers(core, self._sampler)
        make_absolute(self._sampler)

    # -- what it is ------------------------------------------------------------------------

    @_using
    def describe(self) -> tuple[int, int]:
        """The table's id, and how many transitions it holds.

        Asked again and again, so this also notices what damage to a table nobody uses may be.
        """
        if not self._closed:
            if not is_current(self._table):
                self._begin_anew("its memory was swept away")
            if wrong := damage.look(self._table):
                self._begin_anew(wrong)
        return self._table._core.arena.id, self._table.size()

    def examine(self) -> None:
        """Look through the whole table, as somebody else has found it damaged."""
        if wrong := damage.walk(self._table):
            self._begin_anew(wrong)

    def _begin_anew(self, why: str) -> None:
        """Take the table's name away and end; Ray starts another actor, which begins it anew.

        Writers that have the old one mapped keep it until they notice. Who comes here second
        waits for the end.
        """
        with self._ending:
            if self._closed:
                return
            _LOGGER.warning("shard %s is begun anew: %s", self._name, why)
            arena = self._table._core.arena
            with suppress(OSError):  # gone already
                leftovers.remove(places.path_of(self._name, None), arena._descriptor.key)
            os._exit(1)

    def pid(self) -> int:
        """The actor's process."""
        return os.getpid()

    @_using
    def stats(self) -> Stats:
        """See ``ArrayMemoryTable``."""
        return self._table.stats()

    @_using
    def check(self) -> list[Finding]:
        """See ``ArrayMemoryTable``."""
        return self._table.check()

    @_using
    def full(self) -> bool:
        """See ``ArrayMemoryTable``."""
        return self._table.full()

    # -- drawing ---------------------------------------------------------------------------

    @_using
    def draw(self, count: int, steps: int) -> Part:
        """The offer, and ``count`` windows (0 for none) if there are any.

        Nothing is kept for whoever asked: an answer that nobody takes leaves nothing behind.
        """
        offer = self._offers.now(steps)
        if not count or offer.weight <= 0:
            return Part(offer, {}, np.empty((len(_FIELDS), 0), np.int64), None)
        try:
            sample = self._table.sample(count, steps)
        except (EmptyTableError, NoWindowError):  # what was on offer has left since
            return Part(offer._replace(weight=0.0), {}, np.empty((len(_FIELDS), 0), np.int64), None)
        points: Any = sample.points
        return Part(
            offer,
            # In one piece each, so that Ray takes them as they are, without another copy.
            {name: np.ascontiguousarray(as_array(column)) for name, column in sample.items()},
            np.stack([getattr(points, field) for field in _FIELDS]),
            points.chances,
        )

    @_using
    def reseed(self, seed: list[int]) -> None:
        """See ``ArrayMemoryTable``."""
        self._table.reseed(seed)

    @_using
    def grant(self, amount: int) -> Grant:
        """Let so much more be added, in units of the limiter; see ``Pace.grant_locked``."""
        return self._table._core.guard.run(self._grant_locked, amount)

    def _grant_locked(self, amount: int) -> Grant:
        core = self._table._core
        grant = core.pace.grant_locked(amount)
        if grant.amount > 0:
            core.index.ring()  # adds that wait ask again
        return grant

    # -- content ---------------------------------------------------------------------------

    @_using
    def update_priorities(self, points: Any, priorities: Any, highest: float) -> int:
        """See ``ArrayMemoryTable``; ``highest`` of the whole update, which new sequences get."""
        applied = self._table.update_priorities(SamplePoints(*points), priorities)
        inner = innermost(self._sampler)
        if isinstance(inner, PrioritizedSampleStrategy):
            self._table._core.guard.run(inner.load_state, {"highest": highest})
        self._offers.forget()
        return applied

    @_using
    def update(self, points: Any, column: str, values: Any) -> int:
        """See ``ArrayMemoryTable``."""
        return self._table.update(SamplePoints(*points), column, values)

    def set_sampler(self, settings: Mapping[str, float]) -> None:
        """Set attributes of the sampler, such as ``beta``; all of them or none."""
        inner = innermost(self._sampler)
        for name in settings:
            if not _is_setting(inner, name):
                raise SpecError(
                    f"{name} is no setting of {type(inner).__name__}; leave it out, or see that "
                    "class for those it has"
                )
        before = {name: getattr(inner, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(inner, name, value)
        except BaseException:
            for name, value in before.items():
                setattr(inner, name, value)
            raise
        self._offers.forget()

    @_using
    def identities(self) -> Int64Array:
        """See ``ArrayMemoryTable``."""
        return self._table.identities()

    @_using
    def sequence(self, identity: int) -> dict[str, Any]:
        """See ``ArrayMemoryTable``."""
        found = self._table.sequence(identity)
        return {name: as_array(column) for name, column in found.items()}

    @_using
    def remove(self, identity: int) -> None:
        """See ``ArrayMemoryTable``."""
        self._table.remove(identity)

    @_using
    def clear(self) -> None:
        """See ``ArrayMemoryTable``."""
        self._table.clear()

    # -- files -----------------------------------------------------------------------------

    @_using
    def store(self, path: str) -> tuple[int, int, int, int]:
        """Write the file; returns its bytes and CRC, and what transitions and sequences it has."""
        with self._storing:
            self._table.store(path)
            size, crc = fingerprint(f"{path}.zip")
            described = inspect.describe(f"{path}.zip")
            return size, crc, described.transitions, described.sequences

    def discard(self, path: str) -> None:
        """Remove a file that was written for a store that has failed; once it is written."""
        with self._storing:
            remove(path, [os.path.basename(path)])

    def verify(self, path: str, size: int, crc: int) -> None:
        """Check that a file is the one that was stored, and whole.

        Raises:
            TableFileError: it is not.
        """
        refuse_changed(f"{path}.zip", size, crc)
        inspect.verify(f"{path}.zip")

    @_using
    def restore(self, paths: Sequence[str], strict: bool) -> None:
        """Replace the content by that of a file, and of others that come on top; none clears it.

        The sequences of those others come as if they were added now, at the end of the first's.
        """
        if not paths:
            self._table.clear()
            return
        self._table.restore(paths[0], strict=strict)
        self.grant(_MOST)  # what a file has comes in whatever the limiter says
        try:
            for path in paths[1:]:
                given = {key: value for key, value in self._options.items() if key != "classes"}
                with ArrayMemoryTable(**given) as other:
                    other.restore(path, strict=strict)
                    for identity in other.identities().tolist():
                        self._table.add_sequence(identity, other.sequence(identity))
        finally:
            self.grant(-_MOST)

    def close(self) -> None:
        """Let go of the table, and end its name. Writers that have it open go on with nothing."""
        self._closed = True
        self._table.close()
        drop(self._name)


def _adopted(name: str, classes: Iterable[type[Any]]) -> ArrayMemoryTable | None:
    """The table that an earlier process of this shard has left, if there is a sound one."""
    try:
        table = ArrayMemoryTable.attach(name, classes=classes)
    except ArenaNotFoundError:
        return None
    # Joining reads the index, so what is wrong with it may show in any way.
    except (ArenaError, ArithmeticError, LookupError, ValueError) as error:
        wrong = str(error)
    else:
        wrong = damage.walk(table)
        if not wrong:
            return table
        table.close()
    _LOGGER.warning("shard %s is begun anew, what was left of it cannot be used: %s", name, wrong)
    drop(name)
    return None


def _made(name: str, options: Mapping[str, Any], path: str | None) -> ArrayMemoryTable:
    given = {key: value for key, value in options.items() if key != "classes"}
    if given.get("seed") is not None:  # shards that drew alike would be no independent ones
        root = np.random.SeedSequence([given["seed"], zlib.crc32(name.encode())])
        given["seed"] = int(root.generate_state(1)[0])
    table = ArrayMemoryTable(name=name, **given)
    # An actor may be ended in good order, too: the table is for the next one, unless ``drop``ped.
    table._core.arena._parting.keep_name()
    if path is not None:
        try:
            table.restore(path)
        except (OSError, TableFileError) as error:
            _LOGGER.warning("shard %s begins empty, its last file cannot be used: %s", name, error)
    return table


def _is_setting(sampler: object, name: str) -> bool:
    """Whether it is a number of the sampler's that may be set: not a method, nor its memory."""
    kind = getattr(type(sampler), name, None)
    if isinstance(kind, property):
        return kind.fset is not None
    return not name.startswith("_") and isinstance(vars(sampler).get(name), (int, float))


def drop(name: str) -> None:
    """Remove a table's name, used or not; those who have it open go on with it."""
    path = places.path_of(name, None)
    with suppress(OSError), places.name_lock(path):
        key = files.key_of(os.lstat(path))
        if not leftovers.remove_unused(path):
            leftovers.remove(path, key)


def as_array(column: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor's memory as an array; as bits where numpy does not know the type."""
    try:
        return column.numpy()
    except TypeError:
        bits = {1: torch.uint8, 2: torch.int16}[column.element_size()]
        return column.view(bits).numpy()
