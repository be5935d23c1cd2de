"""Every exception shmtable raises.

Each derives from :class:`ShmTableError` and from the builtin a caller would expect, says what
went wrong, with which value, against which rule and what to do, carries its values as
attributes, and survives pickling, because it crosses processes::

    ShmTableError
    |-- SpecError(ValueError)                 a column, limit or option that cannot be
    |-- SequenceError(ValueError)             a sequence that does not fit the table's columns
    |   `-- DuplicateIdentityError            its identity is already in the table
    |-- UnknownIdentityError(KeyError)        no live sequence has this identity
    |-- SampleError(ValueError)               a sample that cannot be drawn
    |   |-- EmptyTableError                   nothing has been added yet
    |   `-- NoWindowError                     no sequence is as long as the window
    |-- PriorityError(ValueError)             a priority that cannot be, or that nobody keeps
    |-- CapacityError(ValueError)             a limit that cannot be had
    |-- SharedMemoryError(OSError)            the system has no memory or disk space left for it
    |-- DeviceMemoryError(RuntimeError)       columns on a device that are out of reach
    |-- ArenaError(OSError)                   a table that cannot be created or attached
    |   |-- ArenaNotFoundError(FileNotFoundError)
    |   |-- ArenaInUseError(FileExistsError)
    |   |-- ArenaPermissionError(PermissionError)
    |   |-- ArenaVersionError                 written by a newer or older shmtable
    |   |-- ArenaDamagedError                 not a table, or cut short, or inconsistent
    |   `-- ArenaUncleanError                 on disk, in use when the machine stopped
    |-- TableFileError(ValueError)            a file that is not restored, or cannot be written
    |   |-- FileMissingError(FileNotFoundError)
    |   |-- FileDamagedError                  cut short, changed, or contradicting itself
    |   |-- FileVersionError                  of a format this version does not know
    |   |-- FileUnsafeError                   names code or paths that have no place in it
    |   `-- FileMismatchError                 sound, but of another table's columns
    |-- LockTimeoutError(TimeoutError)        another process holds the table's lock
    |-- WaitTimeoutError(TimeoutError)        no data or no room came in time
    |   `-- RateLimitedError                  the limiter did not let the call go on
    |-- LockReentryError(RuntimeError)        the table was called from inside its own section
    |-- StrategyError(RuntimeError)           a sampler or ejector chose what it must not
    |-- SlotLostError(RuntimeError)           an open reservation was taken away
    |-- ClosedError(ValueError)               use after close()
    `-- MissingExtraError(ImportError)        an optional package is not installed
"""

from __future__ import annotations

from typing import Any


class ShmTableError(Exception):
    """Base of every error raised here; keyword arguments become attributes."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields
        for key, value in fields.items():
            setattr(self, key, value)

    def __str__(self) -> str:
        # KeyError would print the message quoted.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.fields)


def _rebuild(cls: type[ShmTableError], message: str, fields: dict[str, Any]) -> ShmTableError:
    return cls(message, **fields)


class SpecError(ShmTableError, ValueError):
    """A column, limit or option that cannot be."""


class SequenceError(ShmTableError, ValueError):
    """A sequence that does not fit the table's columns."""


class DuplicateIdentityError(SequenceError):
    """The identity already belongs to a sequence in the table, or to one being written."""


class UnknownIdentityError(ShmTableError, KeyError):
    """No live sequence has this identity."""


class SampleError(ShmTableError, ValueError):
    """A sample that cannot be drawn."""


class EmptyTableError(SampleError):
    """Nothing has been added yet."""


class NoWindowError(SampleError):
    """No sequence is as long as the window asked for."""


class PriorityError(ShmTableError, ValueError):
    """A priority that cannot be, or that no strategy of the table keeps."""


class CapacityError(ShmTableError, ValueError):
    """A limit that cannot be had."""


class SharedMemoryError(ShmTableError, OSError):
    """The system has no memory, or the disk no space, for the rows asked for."""


class DeviceMemoryError(ShmTableError, RuntimeError):
    """The columns are in a device's memory that this process cannot reach, or not any more."""


class ArenaError(ShmTableError, OSError):
    """A table's file that cannot be created or attached."""


class ArenaNotFoundError(ArenaError, FileNotFoundError):
    """No table of this name."""


class ArenaInUseError(ArenaError, FileExistsError):
    """A living process uses a table of this name."""


class ArenaPermissionError(ArenaError, PermissionError):
    """The file belongs to somebody else, or others may write to it."""


class ArenaVersionError(ArenaError):
    """The file is sound, but of a format this version does not read."""


class ArenaDamagedError(ArenaError):
    """The file is not a table, is cut short, or contradicts itself."""


class ArenaUncleanError(ArenaError):
    """The file was in use when the machine stopped; see ``attach(recover=True)``."""


class TableFileError(ShmTableError, ValueError):
    """A table's file that is not restored, or that cannot be written as asked for."""


class FileMissingError(TableFileError, FileNotFoundError):
    """There is no such file."""


class FileDamagedError(TableFileError):
    """The file is no table's, is cut short, has been changed, or contradicts itself."""


class FileVersionError(TableFileError):
    """The file may be sound, but is of a format that this version does not read."""


class FileUnsafeError(TableFileError):
    """The file names code, or paths, that have no place in it; nothing of it was executed."""


class FileMismatchError(TableFileError):
    """The file is sound, but its columns are not this table's."""


class LockTimeoutError(ShmTableError, TimeoutError):
    """Another process held the table's lock for the whole time allowed."""


class WaitTimeoutError(ShmTableError, TimeoutError):
    """What the call waited for (data, room) did not come in the time allowed."""


class RateLimitedError(WaitTimeoutError):
    """The table's limiter does not admit the call now, or has not in the time allowed."""


class LockReentryError(ShmTableError, RuntimeError):
    """The table was called from inside its own critical section."""


class StrategyError(ShmTableError, RuntimeError):
    """A sampler or ejector did not return what it was asked for."""


class SlotLostError(ShmTableError, RuntimeError):
    """A reservation was taken away before its sequence was committed."""


class ClosedError(ShmTableError, ValueError):
    """The table was used after ``close()``."""


class MissingExtraError(ShmTableError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""
