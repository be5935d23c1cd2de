"""Files of a distributed table: one per shard, and the manifest that names them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from shmtable.errors import TableFileError, WaitTimeoutError
from shmtable.integrations.needed import needed
from shmtable.integrations.ray import manifest
from shmtable.integrations.ray.keeper import told
from shmtable.integrations.ray.manifest import ShardFile

with needed("ray", extra="ray"):
    import ray
    from ray.exceptions import RayError, RayTaskError

_State = tuple[str, str, str, int, Any]
_STARTING_S, _PAUSE_S = 60.0, 0.05
_WRITING_S = 600.0


def answered(answers: Sequence[Any], what: str) -> list[Any]:
    """All answers, in order.

    Raises:
        ShmTableError, OSError: what a shard has raised.
        WaitTimeoutError: a shard has died before it answered.
    """
    try:
        return list(ray.get(list(answers)))
    except RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except RayError as error:
        raise WaitTimeoutError(
            f"a shard was lost while {what} ({str(error).splitlines()[0]}); try again"
        ) from error


def store(keeper: Any, path: str | os.PathLike[str]) -> None:
    """Let every shard write its file, and then write the manifest."""
    shards = _ready(keeper, "stored")
    folder = os.path.dirname(manifest.manifest_path(path))
    os.stat(folder)
    names = manifest.new_names(path, len(shards))
    where = [os.path.join(folder, name) for name in names]
    asked = [
        actor.store.remote(place) for (_, _, _, _, actor), place in zip(shards, where, strict=True)
    ]
    try:
        found = answered(asked, "it was stored")
        entries = [ShardFile(name, *told) for name, told in zip(names, found, strict=True)]
        for place, entry in zip(where, entries, strict=True):
            # Seen from here, too: else the nodes do not share this folder.
            manifest.refuse_changed(f"{place}.zip", entry.size, entry.crc)
        # A shard that is lost has no file in this set, and its last one is still to be taken.
        needed = [os.path.relpath(file, folder) for file in told(keeper.needed.remote())]
        spared = manifest.write(path, entries, needed)
    except BaseException as error:
        # Where one has failed, others still write, and their files would come after the removal.
        if isinstance(error, Exception):
            ray.wait(asked, num_returns=len(asked), timeout=_WRITING_S)
        else:  # whoever pressed Ctrl-C does not wait for them; they do it when they have written
            for (_, _, _, _, actor), place in zip(shards, where, strict=True):
                actor.discard.remote(place)
        manifest.remove(path, names)
        raise
    last = {name: place for (name, _, _, _, _), place in zip(shards, where, strict=True)}
    useless = told(keeper.stored.remote(last, [os.path.join(folder, name) for name in spared]))
    for file in useless:
        manifest.remove(file, [os.path.basename(file)])


def restore(keeper: Any, path: str | os.PathLike[str], strict: bool) -> None:
    """Check every file, and only then let the shards take them.

    Where there are more files than shards, some shards take several; what is too much for them is
    ejected as they go. Shards for which there is no file are cleared.
    """
    entries = manifest.read(path)
    shards = _ready(keeper, "restored")
    folder = os.path.dirname(manifest.manifest_path(path))
    taken = [entries[number :: len(shards)] for number in range(len(shards))]
    answered(
        [
            actor.verify.remote(os.path.join(folder, entry.name), entry.size, entry.crc)
            for (_, _, _, _, actor), several in zip(shards, taken, strict=True)
            for entry in several
        ],
        "its files were checked",
    )
    answered(
        [
            actor.restore.remote([os.path.join(folder, entry.name) for entry in several], strict)
            for (_, _, _, _, actor), several in zip(shards, taken, strict=True)
        ],
        "it was restored; its content is partly new",
    )


def _ready(keeper: Any, done: str) -> list[_State]:
    # After a restart the keeper has yet to hear of shards that hold as much as ever, so those that
    # are starting must not be left out.
    ends = time.monotonic() + _STARTING_S
    states: list[_State] = told(keeper.states.remote())
    while any(state[2] == "starting" for state in states) and time.monotonic() < ends:
        time.sleep(_PAUSE_S)
        states = told(keeper.states.remote())
    silent = [name for name, _, state, _, _ in states if state != "ready"]
    if silent or not states:
        raise WaitTimeoutError(
            f"shards {', '.join(silent) or 'of this table'} do not answer, so it cannot be {done} "
            "whole; try again when stats() shows all of them as ready"
        )
    return states


def refuse_version(version: Any, latest: Any) -> None:
    """Refuse to write any but the latest format.

    Raises:
        TableFileError: another one is asked for.
    """
    if version is not latest:
        raise TableFileError(
            f"version is {version}; the files of shards are written as {latest} only: leave it out"
        )
