"""Which tables there are on this machine, and what state each is in; nothing is changed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from shmtable.errors import (
    ArenaError,
    ArenaNotFoundError,
    ArenaPermissionError,
    ArenaVersionError,
)
from shmtable.protocols.outside import Outside
from shmtable.shm import durable, files, places
from shmtable.shm.header import CREATOR_FD, CREATOR_PID, MAGIC, MAGIC_VALUE
from shmtable.shm.look import Look, is_used, users
from shmtable.types import Stats

IN_USE = "in use"
DEAD = "dead"
AT_REST = "at rest"
UNCLEAN = "unclean"
UNFINISHED = "unfinished"
DAMAGED = "damaged"
OTHER_VERSION = "other version"
FOREIGN = "foreign"

_UNNAMED = re.compile(r"(\d{1,10}):(\d{1,10})")
_Users = dict[files.Key, list[tuple[int, int]]]


class Listed(NamedTuple):
    """One table, or what lies where one could be.

    Attributes:
        name: by which commands know it; of one without a name PID:DESCRIPTOR.
        path: its file.
        state: one of the above.
        detail: what to know about that; may be empty.
        pids: of this user's processes that have it open.
        taken_bytes: memory or disk space it takes; None where it cannot be told.
        stats: None where it cannot be read.
    """

    name: str
    path: str
    state: str
    detail: str
    pids: tuple[int, ...]
    taken_bytes: int | None
    stats: Stats | None


def find(name: str, directory: str | None) -> tuple[str, bool]:
    """The file of a table, and whether it is one that only ``/proc`` leads to.

    Args:
        name: as ``Listed`` has it.
        directory: its folder, or None for shared memory.

    Raises:
        SpecError: the name is none.
    """
    unnamed = _UNNAMED.fullmatch(name) if directory is None else None
    if unnamed:
        return "/proc/{}/fd/{}".format(*unnamed.groups()), True
    return places.path_of(name, directory), False


def open_outside(name: str, directory: str | None) -> Outside:
    """Look at a table by its name.

    Raises:
        SpecError, ArenaError: as ``Onlooker``.
    """
    path, magic_link = find(name, directory)
    look = Look.open(path, magic_link=magic_link)
    try:
        return Outside(look)
    except BaseException:
        look.close()
        raise


def tables(directory: str | None) -> list[Listed]:
    """Everything there is: in shared memory and without a name, or in a folder.

    Raises:
        ArenaNotFoundError: there is no such folder.
    """
    known = users()
    found = []
    for name, path in _named(directory):
        with suppress(ArenaNotFoundError):  # it has gone since
            found.append(listed(name, path, known))
    if directory is None:
        found += _unnamed(known)
    return found


def listed(
    name: str, path: str, known: _Users | None = None, *, magic_link: bool = False
) -> Listed:
    """What lies at a path.

    Raises:
        ArenaNotFoundError: nothing does.
    """
    pids: tuple[int, ...] = ()
    taken = None
    known = users() if known is None else known
    try:
        status = os.stat(path) if magic_link else os.lstat(path)
        taken = status.st_blocks * 512
        pids = tuple(sorted({pid for pid, _ in known.get(files.key_of(status), [])}))
        with Look.open(path, magic_link=magic_link) as look:
            state, detail = _state(path, look, magic_link, bool(pids))
            stats = Outside(look).stats()
    except (ArenaNotFoundError, FileNotFoundError) as error:
        raise ArenaNotFoundError(
            f"{path} does not exist; 'shmtable ls' says which tables do", path=path
        ) from error
    except ArenaPermissionError as error:
        return Listed(name, path, FOREIGN, str(error), pids, taken, None)
    except ArenaVersionError as error:
        return Listed(name, path, OTHER_VERSION, str(error), pids, taken, None)
    except ArenaError as error:
        state = UNFINISHED if _is_unfinished(path) else DAMAGED
        return Listed(name, path, state, str(error), pids, taken, None)
    return Listed(name, path, state, detail, pids, taken, stats)


def _state(path: str, look: Look, magic_link: bool, is_held: bool) -> tuple[str, str]:
    in_memory = path.startswith(places.shared_prefix())
    used = is_held or (True if magic_link else is_used(path))
    if used is None:
        return IN_USE, "being created, attached or removed at this moment"
    if used:
        return IN_USE, "" if is_held else "by processes that cannot be seen from here"
    if in_memory:
        return DEAD, "nobody has it open; 'shmtable gc' removes it"
    if durable.is_unclean(look.header):
        return UNCLEAN, "in use when the machine stopped; attach with recover=True"
    return AT_REST, "on disk, nobody has it open"


def refuse_what_is_no_table(path: str) -> None:
    """Let pass what begins as a table does, or as one that was never finished.

    Raises:
        ArenaPermissionError: it is something else, or not ours.
    """
    word = _first_word(path)
    if word not in (0, MAGIC_VALUE):
        raise ArenaPermissionError(
            f"{path} is no table (its first word is {word:#x}), so it is not removed; see what it "
            "is, and remove it yourself",
            path=path,
        )


def _first_word(path: str) -> int:
    opened = files.open_to_read(path)
    try:
        return int.from_bytes(os.pread(opened.fd, 8, 8 * MAGIC), "little")
    finally:
        files.close_read(opened)


def _is_unfinished(path: str) -> bool:
    """Whether its creation was cut off, or is under way: its first word is the last one written."""
    with suppress(ArenaError, OSError):
        return _first_word(path) == 0
    return False


def _named(directory: str | None) -> list[tuple[str, str]]:
    if directory is not None:
        try:
            entries = sorted(os.listdir(directory))
        except OSError as error:
            raise ArenaNotFoundError(
                f"{directory} cannot be listed ({error.strerror}); give an existing folder",
                path=directory,
            ) from error
        return [
            (entry.removesuffix(places.SUFFIX), os.path.join(directory, entry))
            for entry in entries
            if entry.endswith(places.SUFFIX)
        ]
    folder, mine = os.path.split(places.shared_prefix())
    found = []
    with suppress(FileNotFoundError):
        for entry in sorted(os.listdir(folder)):
            theirs = re.match(r"shmtable-\d+-", entry)
            if theirs:
                # Of another user's, the whole file's name: it is none that could be attached to.
                own = entry.startswith(mine)
                found.append((entry.removeprefix(mine) if own else entry, f"{folder}/{entry}"))
    return found


def _unnamed(known: _Users) -> list[Listed]:
    found = []
    for holders in known.values():
        pid, number = holders[0]
        link = f"/proc/{pid}/fd/{number}"
        with suppress(ArenaError, OSError):
            target = os.readlink(link)
            made_without = target.startswith("/memfd:shmtable")
            if not made_without and not target.endswith(" (deleted)"):
                continue
            with Look.open(link, magic_link=True) as look:
                words = look.header.words
            made = words[CREATOR_PID], words[CREATOR_FD]
            pid, number = made if made in holders else holders[0]
            link = f"/proc/{pid}/fd/{number}"
            entry = listed(f"{pid}:{number}", link, known, magic_link=True)
            if not made_without:
                entry = entry._replace(detail="its name has been removed")
            found.append(entry)
    return sorted(found)
