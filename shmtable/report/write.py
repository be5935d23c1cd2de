"""Watching a table for a while, and writing down what was seen."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec

from shmtable.errors import ArenaError, MissingExtraError
from shmtable.held import HeldTable
from shmtable.onlooker import Onlooker
from shmtable.report.seen import Moment, Seen

_MOST_MOMENTS = 120
_LEAST_PAUSE_S = 0.05


def write_report(
    table: HeldTable | Onlooker, path: str | os.PathLike[str], *, watch_s: float = 3.0
) -> None:
    """Write one HTML page about a table: no other file, no script, nothing from the network.

    It shows fill and rates over the time watched, how long and how old the sequences are, how
    often each was sampled, priorities where there are any, and each process's share. The table is
    only read, without its lock.

    Args:
        table: one that this process has open, or an ``Onlooker``.
        path: of the page; replaced as a whole or not at all.
        watch_s: how many seconds to watch, 0 for a single look. Sampling and adding have to go
            on elsewhere meanwhile: this call only watches.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArenaDamagedError: the table's numbers are no table's.
        OSError: the page cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "a report needs matplotlib, not installed here; install the extra that brings it: "
            "pip install 'shmtable[watch]'",
            packages=["matplotlib"],
            extra="watch",
        )
    # Only now, because it imports matplotlib.
    from shmtable.report.page import page

    with ExitStack() as stack:
        onlooker = table
        if isinstance(onlooker, HeldTable):
            onlooker = stack.enter_context(Onlooker.of(onlooker))
        text = page(_watch(onlooker, watch_s))
    _put(os.fspath(path), text)


def _put(path: str, text: str) -> None:
    """Replace a file as a whole or not at all."""
    temporary = f"{path}.{secrets.token_hex(8)}.partial"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _watch(onlooker: Onlooker, watch_s: float) -> Seen:
    began = time.monotonic()
    moments = [Moment(0.0, onlooker.stats())]
    pause_s = max(watch_s / _MOST_MOMENTS, _LEAST_PAUSE_S)
    while (left_s := began + watch_s - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        try:
            moments.append(Moment(time.monotonic() - began, onlooker.stats()))
        except ArenaError:
            break  # it went away: what was seen so far is the report
    return Seen(onlooker.name, time.time(), moments, onlooker.sequences(), onlooker.description())
