"""Knows which shards there are, puts one on every node, and replaces those that are lost.

One actor, the only part of a distributed table that knows all others. Neither adding nor sampling
comes by here: processes ask it once where the shards are, and now and then whether that has
changed. (A limiter is the exception: see ``pacing``.)

What is lost is told by the id of a shard's table. While an actor is restarted its shard is silent;
when it answers again with the same id, nothing was lost; with another id, or when its node is gone,
all that it held is. A node is gone when Ray says so.

If this actor dies, its shards' actors end with it, and Ray starts it again. It then starts them
again, and they find their tables, whose names follow from the node: see ``shard``. What cannot be
found (losses, and which files there are) it has noted: see ``notes``.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from shmtable.errors import ArenaNotFoundError
from shmtable.integrations.needed import needed
from shmtable.integrations.ray.entries import Entry, Seen
from shmtable.integrations.ray.local import RANGE_BITS
from shmtable.integrations.ray.notes import Notes, last_file
from shmtable.integrations.ray.pacer import Pacer
from shmtable.integrations.ray.shard import Shard, drop
from shmtable.limiters import Limiter

with needed("ray", extra="ray"):
    import ray
    from ray.exceptions import ActorDiedError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_LOGGER = logging.getLogger("shmtable")
NAMESPACE = "shmtable"
_WATCH_EVERY_S = 0.25
_NOTE_EVERY_S = 2.0
_CLOSE_S = 20.0
_THREADS = 8
_MOST_DEAD = 1000
# A range has 2**28 identities, below all that other writers make up; each keeper has 2**18 ranges.
_RANGES_BITS = 18


def actor_name(store: str) -> str:
    """The keeper's name, of a distributed table's."""
    return f"shmtable/{store}"


def told(answer: Any) -> Any:
    """What a keeper has answered; while it is being restarted, that is waited for.

    Raises:
        ShmTableError: what it has raised.
        ArenaNotFoundError: it does not come back.
    """
    try:
        return ray.get(answer)
    except RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except ActorDiedError as error:
        raise ArenaNotFoundError(
            "the distributed table has ended: by end(), or with the program or the node that it "
            "was made in; make it anew, with detached=True for one that outlives them"
        ) from error


class Keeper:
    """An actor's class, whose calls come in several threads.

    Args:
        store: the distributed table's name.
        token: of this table, told from earlier ones of the same name.
        options: of each shard's table.
        about: what every process that uses the table has to know of it.
        nodes: those that get shards; None for all, those that join later included.
        each: shards per node.
        refill: whether a shard that replaces a lost one begins with its last file.
        detached: whether the shards outlive the program that made the table.
        limiter: over all shards together.
    """

    def __init__(
        self,
        store: str,
        token: str,
        options: Mapping[str, Any],
        about: Mapping[str, Any],
        nodes: Sequence[str] | None,
        each: int,
        refill: bool,
        detached: bool,
        limiter: Limiter | None = None,
    ) -> None:
        self._prefix = f"{store}.{token}"
        self._options, self._about = dict(options), dict(about)
        self._nodes = None if nodes is None else frozenset(nodes)
        self._each, self._refill, self._detached = each, refill, detached
        self._lock, self._noting = threading.RLock(), threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._shards: dict[str, Entry] = {}
        self._vacant: list[str | None] = []  # last files of lost shards nobody has replaced yet
        self._dead: list[str] = []
        self._spared: list[str] = []  # that no manifest names any more, but a lost shard's place
        self._lost = self._transitions_lost = 0
        self._notes, self._note_at = Notes(self._prefix), 0.0
        self._remember()
        # Never one that an earlier keeper has given: to who knows that, nothing would have changed.
        self._version = secrets.randbits(60)
        first = secrets.randbits(62 - RANGE_BITS - _RANGES_BITS) << _RANGES_BITS
        self._ranges = itertools.count(first)
        self._stop = threading.Event()
        self._pacer = None if limiter is None else Pacer(limiter, self._to_pace)
        self._look_on()
        self._watcher = threading.Thread(target=self._watch, name="shmtable-keeper", daemon=True)
        self._watcher.start()

    # -- pacing ------------------------------------------------------------------------------

    def admit(self, count: int, steps: int, timeout_s: float) -> str:
        """Whether a sample may be drawn; see ``Pacer``."""
        return "" if self._pacer is None else self._pacer.admit(count, steps, timeout_s)

    def give_back(self, count: int, steps: int) -> None:
        """See ``Pacer``."""
        if self._pacer is not None:
            self._pacer.give_back(count, steps)

    def begin_pacing(self) -> None:
        """See ``Pacer.begin``."""
        if self._pacer is not None:
            self._pacer.begin()

    def _to_pace(self) -> list[tuple[str, Any]]:
        with self._lock:
            return [(name, actor) for name, _, _, actor in self._ready()]

    # -- asked by everybody ----------------------------------------------------------------

    def pid(self) -> int:
        """The actor's process."""
        return os.getpid()

    def about(self) -> dict[str, Any]:
        """What the table is: columns and so on."""
        return self._about

    def seen(self, at_least: int = 0, timeout_s: float = 0.0) -> Seen:
        """The shards that are ready; waits so long for ``at_least`` of them."""
        ends = time.monotonic() + timeout_s
        with self._changed:
            while (shards := self._ready()) is not None and len(shards) < at_least:
                if not self._changed.wait(max(ends - time.monotonic(), 0)):
                    break
            return Seen(self._version, tuple(shards), self._lost, self._transitions_lost)

    def on_node(self, node: str, timeout_s: float) -> list[str] | None:
        """Names of the tables on a node, once all are ready; empty where they are not in time.

        None for a node that gets none.
        """
        ends = time.monotonic() + timeout_s
        with self._changed:
            while True:
                here = [entry for entry in self._shards.values() if entry.node == node]
                if len(here) == self._each and all(entry.state == "ready" for entry in here):
                    return sorted(entry.name for entry in here)
                if self._nodes is not None and node not in self._nodes:
                    return None
                if not self._changed.wait(max(ends - time.monotonic(), 0)):
                    return []

    def identities(self) -> int:
        """The first of 2**28 identities, all negative, that nobody else is given."""
        number = next(self._ranges)
        return -(1 << 62) - ((number + 1) << RANGE_BITS)

    def states(self) -> list[tuple[str, str, str, int, Any]]:
        """(name, node, state, table, actor) of every shard; None for an actor not made yet."""
        with self._lock:
            return [(e.name, e.node, e.state, e.table, e.actor) for e in self._shards.values()]

    def heard(self) -> dict[str, int]:
        """How many transitions each shard held when last heard of: what its loss would cost."""
        with self._lock:
            return {entry.name: entry.transitions for entry in self._shards.values()}

    def needed(self) -> list[str]:
        """Last files of lost shards whose places are not taken yet."""
        with self._lock:
            return [file for file in self._vacant if file is not None]

    def stored(self, files: Mapping[str, str], spared: Sequence[str] = ()) -> list[str]:
        """Note the shards' last files.

        Args:
            files: by the tables' names.
            spared: files that no manifest names any more, and that are ``needed``.

        Returns:
            Those spared, now or before, that are not needed any more, to be removed.
        """
        with self._lock:
            for name, file in files.items():
                if name in self._shards:
                    self._shards[name].file = file
            kept = {*self._vacant, *(entry.file for entry in self._shards.values())}
            spared = [*self._spared, *spared]
            self._spared = [file for file in spared if file in kept]
        self._note(at_once=True)
        return [file for file in spared if file not in kept]

    def close(self) -> None:
        """End all shards, and the names of their tables."""
        self._stop.set()
        self._watcher.join()
        if self._pacer is not None:
            self._pacer.close()
        with self._lock:
            actors = [entry.actor for entry in self._shards.values() if entry.actor is not None]
            asked = [actor.close.remote() for actor in actors]
            if asked:
                ray.wait(asked, num_returns=len(asked), timeout=_CLOSE_S)
            for actor in actors:
                ray.kill(actor)
            # What is on this machine of shards that could not do it themselves: their actors were
            # just being restarted, or their nodes, being simulated, have left their memory here.
            for name in (*self._dead, *self._shards):
                drop(name)
            self._shards.clear()
        self._notes.remove()

    # -- what the next keeper has to know --------------------------------------------------

    def _remember(self) -> None:
        noted = self._notes.read()
        if not noted:
            return
        self._lost, self._transitions_lost = noted["lost"], noted["transitions_lost"]
        self._vacant, self._dead, self._spared = noted["vacant"], noted["dead"], noted["spared"]
        for name, known in noted["shards"].items():
            self._shards[name] = Entry(name, **known)

    def _note(self, *, at_once: bool) -> None:
        """Write it down; how many transitions there are changes often, and is not in a hurry."""
        if not at_once and time.monotonic() < self._note_at:
            return
        self._note_at = time.monotonic() + _NOTE_EVERY_S
        with self._noting:  # and not under the lock: the head of the cluster may be slow
            with self._lock:
                content = {
                    "lost": self._lost,
                    "transitions_lost": self._transitions_lost,
                    "vacant": list(self._vacant),
                    "dead": self._dead,
                    "spared": self._spared,
                    "shards": {name: entry.noted() for name, entry in self._shards.items()},
                }
            self._notes.write(content)

    # -- watching over them ----------------------------------------------------------------

    def _ready(self) -> list[tuple[str, str, int, Any]]:
        return [
            (entry.name, entry.node, entry.table, entry.actor)
            for entry in self._shards.values()
            if entry.state == "ready"
        ]

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_EVERY_S):
            self._look_on()

    def _look_on(self) -> None:
        try:
            self._look()
        # The head of the cluster is busy, or an actor's name not free yet (a ValueError): it is
        # asked again.
        except (RayError, ValueError) as error:
            _LOGGER.warning("shards cannot be watched just now: %s", _first_line(error))

    def _look(self) -> None:
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        with self._changed:
            for entry in list(self._shards.values()):
                if entry.node not in alive:
                    self._lose(entry)
            for node in alive:
                if self._nodes is None or node in self._nodes:
                    for name in self._names(node):
                        if name not in self._shards:
                            file = self._vacant.pop() if self._vacant else None
                            self._shards[name] = Entry(name, node, file=file)
            version = self._version
            for entry in list(self._shards.values()):
                if not entry.made:
                    self._start(entry)
                if entry.made:
                    self._ask(entry)
            self._changed.notify_all()
        self._note(at_once=version != self._version)

    def _names(self, node: str) -> Iterator[str]:
        return (f"{self._prefix}.{node[:12]}.{number}" for number in range(self._each))

    def _start(self, entry: Entry) -> None:
        file, last = None, None
        if self._refill:
            file, last = entry.file, partial(last_file, self._prefix, entry.name)
        try:
            entry.actor = (
                ray.remote(Shard)
                .options(
                    name=entry.name,
                    namespace=NAMESPACE,
                    lifetime="detached" if self._detached else None,
                    get_if_exists=True,
                    num_cpus=0,
                    max_restarts=-1,
                    max_concurrency=_THREADS,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(entry.node, soft=False),
                )
                .remote(entry.name, self._options, tuple(self._dead), file, last)
            )
        except (RayError, ValueError) as error:  # its name is not free yet, perhaps: next time
            _LOGGER.warning("shard %s cannot be started yet: %s", entry.name, _first_line(error))
            return
        entry.made = True

    def _lose(self, entry: Entry) -> None:
        self._count_loss(entry, f"its node {entry.node[:12]} is gone")
        del self._shards[entry.name]
        self._vacant.append(entry.file)
        self._dead = [*self._dead, entry.name][-_MOST_DEAD:]
        if entry.actor is not None:
            with suppress(RayError):
                ray.kill(entry.actor)  # else Ray might go on trying to restart it

    def _count_loss(self, entry: Entry, why: str) -> None:
        if not entry.table:
            return  # it has never been ready
        self._lost += 1
        self._transitions_lost += entry.transitions
        self._version += 1
        if self._pacer is not None:
            self._pacer.forget(entry.name)
        _LOGGER.warning(
            "shard %s is lost with its %d transitions: %s; sampling goes on over the others",
            entry.name,
            entry.transitions,
            why,
        )

    def _ask(self, entry: Entry) -> None:
        """Take a shard's answer if there is one, and ask it again."""
        if entry.ask is not None:
            done, _ = ray.wait([entry.ask], timeout=0)
            if not done:
                return
            try:
                table, transitions = ray.get(entry.ask)
            except RayError as error:
                self._silent(entry, error)
                return
            if entry.table not in (0, table):
                self._count_loss(entry, "its table was gone, or damaged, when it came back")
            if entry.state != "ready" or entry.table != table:
                self._version += 1
            entry.table, entry.transitions, entry.state = table, transitions, "ready"
        entry.ask = entry.actor.describe.remote()

    def _silent(self, entry: Entry, error: RayError) -> None:
        if entry.state == "ready":
            self._version += 1
            _LOGGER.warning("shard %s does not answer: %s", entry.name, _first_line(error))
        entry.ask = None
        if entry.state != "starting":  # not heard since this keeper or the shard began
            entry.state = "silent"
        if isinstance(error, ActorDiedError):
            # For good, as far as Ray is concerned: it was killed by hand, or never came to life.
            _LOGGER.warning("shard %s is started anew: %s", entry.name, _first_line(error))
            with suppress(RayError):
                ray.kill(entry.actor)
            entry.made = False
            self._start(entry)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
