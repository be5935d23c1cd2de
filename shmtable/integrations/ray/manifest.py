"""The file that says which files a stored distributed table consists of.

Each shard writes a file of its own, under a name that nobody used before; the manifest comes last,
and takes the place of the one before in one step. So at any moment the manifest that is there names
files that are complete, and what a cut-off ``store`` has left is named by none. Nothing in it is
believed before it is checked: it is JSON of a known form, the names have no way out of its folder,
and size and checksum of each file are compared.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import filelock

from shmtable.errors import FileDamagedError, FileMissingError, FileUnsafeError, FileVersionError
from shmtable.formats.atomic import replacing

_VERSION = 1
_MOST_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_KIND = "shmtable shards"
_SUFFIX = ".shards.json"


@dataclass(frozen=True)
class ShardFile:
    """One shard's file.

    Attributes:
        name: beside the manifest, without the suffix ".zip".
        size, crc: bytes of the file, and their CRC-32.
        transitions, sequences: that it holds.
    """

    name: str
    size: int
    crc: int
    transitions: int
    sequences: int


def manifest_path(path: str | os.PathLike[str]) -> str:
    """The manifest's own path: absolute, with its suffix."""
    return os.path.abspath(os.fspath(path)) + _SUFFIX


def new_names(path: str | os.PathLike[str], count: int) -> list[str]:
    """Names for so many shards' files that no file has yet, to stand beside the manifest."""
    base, token = os.path.basename(os.fspath(path)), secrets.token_hex(4)
    return [f"{base}-{token}-{number}" for number in range(count)]


def write(
    path: str | os.PathLike[str], shards: Sequence[ShardFile], needed: Collection[str] = ()
) -> list[str]:
    """Put the manifest in place, and then remove the files that only the one before named.

    Args:
        path: as given to ``store``.
        shards: their files.
        needed: names of files that are not removed.

    Returns:
        The names of those that were spared for it.

    Raises:
        OSError: no space, or no right to write there.
        LockTimeoutError: another process is writing it.
    """
    where = manifest_path(path)
    text = {"kind": _KIND, "version": _VERSION, "shards": [asdict(shard) for shard in shards]}
    with replacing(where) as descriptor, os.fdopen(os.dup(descriptor), "wb") as file:
        try:  # only now: another process may just have written one
            before = read(path)
        except (FileDamagedError, FileMissingError, FileUnsafeError, FileVersionError):
            before = []
        _remove_unfinished(path)
        file.write(json.dumps(text, indent=1).encode())
    kept = {shard.name for shard in shards}
    gone = [shard.name for shard in before if shard.name not in kept]
    remove(path, [name for name in gone if name not in needed])
    return [name for name in gone if name in needed]


def remove(path: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Remove shards' files, where they are."""
    folder = os.path.dirname(manifest_path(path))
    for name in names:
        for suffix in (".zip", ".zip.lock"):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name + suffix))


def _remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what shards that died while they were writing have left beside the manifest."""
    folder, base = os.path.split(manifest_path(path).removesuffix(_SUFFIX))
    pattern = re.compile(rf"\.({re.escape(base)}-[0-9a-f]{{8}}-[0-9]{{1,6}})\.zip\..+\.partial")
    for found in os.listdir(folder):
        if match := pattern.fullmatch(found):
            file = os.path.join(folder, f"{match[1]}.zip")
            with suppress(OSError, filelock.Timeout):  # of another store, whose shard still writes
                with filelock.FileLock(f"{file}.lock", timeout=0):
                    os.unlink(os.path.join(folder, found))
                if not os.path.exists(file):
                    os.unlink(f"{file}.lock")


def read(path: str | os.PathLike[str]) -> list[ShardFile]:
    """What a manifest says, checked; the files it names are not looked at yet.

    Raises:
        FileMissingError: there is none.
        FileDamagedError, FileUnsafeError, FileVersionError: it cannot be believed.
    """
    where = manifest_path(path)
    try:
        with open(where, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise FileMissingError(
            f"{where} does not exist; give store()'s path, on a file system that all nodes see",
            path=where,
        ) from None
    try:
        text = json.loads(content) if len(content) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        text = None
    if not isinstance(text, dict) or text.get("kind") != _KIND:
        raise FileDamagedError(
            f"{where} is no manifest of shards, or is cut short; restore an older one", path=where
        )
    if text.get("version") != _VERSION:
        raise FileVersionError(
            f"{where} is format {text.get('version')!r}; this shmtable reads {_VERSION}: upgrade "
            "it",
            path=where,
            version=text.get("version"),
        )
    shards = text.get("shards")
    if not isinstance(shards, list):
        raise FileDamagedError(f"{where} names no shards; restore an older one", path=where)
    base = os.path.basename(os.fspath(path))
    return [_checked(entry, where, base) for entry in shards]


def _checked(entry: Any, where: str, base: str) -> ShardFile:
    numbers = ("size", "crc", "transitions", "sequences")
    sound = (
        isinstance(entry, dict)
        and set(entry) == {"name", *numbers}
        and isinstance(entry["name"], str)
        and all(type(entry[key]) is int and 0 <= entry[key] < 1 << 62 for key in numbers)
    )
    if not sound:
        raise FileDamagedError(
            f"{where}: {entry!r:.80} describes no shard's file; restore an older one", path=where
        )
    if not re.fullmatch(re.escape(base) + r"-[0-9a-f]{8}-[0-9]{1,6}", entry["name"]):
        raise FileUnsafeError(
            f"{where} names {entry['name']!r:.80}, which is no shard's file beside it; nothing was "
            "opened",
            path=where,
        )
    return ShardFile(**entry)


def fingerprint(path: str) -> tuple[int, int]:
    """Bytes of a file, and their CRC-32.

    Raises:
        FileMissingError: it is not there.
    """
    size = crc = 0
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                size += len(piece)
                crc = zlib.crc32(piece, crc)
    except FileNotFoundError:
        raise FileMissingError(
            f"{path} is not to be seen from this node; put all files on a file system that every "
            "node sees",
            path=path,
        ) from None
    return size, crc


def refuse_changed(path: str, size: int, crc: int) -> None:
    """Refuse a file that is not the one that was stored.

    Raises:
        FileMissingError, FileDamagedError: it is not.
    """
    found = fingerprint(path)
    if found != (size, crc):
        raise FileDamagedError(
            f"{path} has {found[0]} bytes with checksum {found[1]:08x}, its manifest says {size} "
            f"and {crc:08x}; it has been changed or replaced: restore an older one",
            path=path,
        )
