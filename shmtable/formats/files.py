"""Opening a table's file of whatever version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shmtable.errors import FileDamagedError, FileVersionError
from shmtable.formats.archive import Archive
from shmtable.formats.base import Content, TableSerializationVersion
from shmtable.formats.legacy_reader import read_legacy
from shmtable.formats.spool import Spool
from shmtable.formats.v1_reader import read_v1

_READERS = {
    TableSerializationVersion.Legacy: read_legacy,
    TableSerializationVersion.V1: read_v1,
}


@contextmanager
def opened(
    path: str,
    override_version: TableSerializationVersion | None = None,
    *,
    most_unpacked_bytes: int | None = None,
) -> Iterator[Content]:
    """Open a file and check everything in it but the checksums of the rows.

    Args:
        path: of the file itself, with its suffix.
        override_version: read it as this version, whatever it says itself.
        most_unpacked_bytes: the most that a compressed member may claim to hold.

    Yields:
        What it says; the rows can be read as long as the block runs.

    Raises:
        FileMissingError, FileDamagedError, FileVersionError, FileUnsafeError: see each.
    """
    with Archive(path) as archive, Spool(most_unpacked_bytes) as spool:
        version = override_version or _version(archive)
        yield _READERS[version](archive, spool)


def _version(archive: Archive) -> TableSerializationVersion:
    if "version" not in archive.members:
        return TableSerializationVersion.Legacy
    text = archive.read("version", 20)
    try:
        number = int(text.decode("ascii"))
    except ValueError:
        raise FileDamagedError(
            f"{archive.where('version')}: is {text!r}, it must be a number; copy the file anew, "
            "or restore an older one",
            path=archive.path,
            member="version",
        ) from None
    known = [version.value for version in TableSerializationVersion]
    if number not in known:
        raise FileVersionError(
            f"{archive.path} is format {number}; this shmtable reads {min(known)} to {max(known)}: "
            "upgrade it, or store the table in an older format",
            path=archive.path,
            version=number,
        )
    return TableSerializationVersion(number)
