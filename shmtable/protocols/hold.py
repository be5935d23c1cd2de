"""What a table with a limiter asks of adds, and of those who change the limiter."""

from __future__ import annotations

from dataclasses import replace
from types import FrameType
from typing import NoReturn

from shmtable.errors import SpecError
from shmtable.index import Blocked, Growth, Request, Reservation
from shmtable.index import fields as f
from shmtable.limiters import LIMITERS, Granted, Limiter, Queue
from shmtable.protocols.core import Core
from shmtable.protocols.options import Options
from shmtable.protocols.pace import Held
from shmtable.strategies import SampleStrategy


class _WouldEject(Exception):
    """A queue's sequences are not ejected; caught here, before anything was stored."""


def reserve_paced_locked(
    core: Core, request: Request, caller: FrameType
) -> Reservation | Growth | Blocked:
    """Reserve when the limiter admits it; see ``Index.reserve_locked``."""
    held = core.pace.insert_locked(request.length)
    if held is not None:
        if not request.replace:
            core.index.refuse_duplicate_locked(request.identity)
        return held
    if not core.pace.is_queue_locked():
        return core.index.reserve_locked(request, core.victims_locked, caller)
    try:
        return core.index.reserve_locked(request, _keep_all, caller)
    except _WouldEject:
        return Held(
            f"the sequences that wait to be sampled leave no gap of {request.span} rows; sample, "
            "or make the table with a larger maxlen"
        )


def _keep_all(_: int) -> NoReturn:
    raise _WouldEject


def checked(
    limiter: object,
    sampler: SampleStrategy,
    options: Options,
) -> Limiter | None:
    """A limiter that a table of this sampler and these options can have.

    Raises:
        SpecError: it cannot.
    """
    if limiter is None:
        return None
    if not isinstance(limiter, Limiter) or type(limiter) not in LIMITERS.values():
        names = ", ".join(cls.__name__ for cls in LIMITERS.values() if cls is not Granted)
        raise SpecError(f"limiter is {limiter!r}; give one of {names}, or None")
    if message := limiter.misfit(options.maxlen, options.max_sequences):
        raise SpecError(message)
    if isinstance(limiter, Queue):
        name = type(limiter).__name__
        if options.max_times_sampled not in (None, 1):
            raise SpecError(
                f"{name}: max_times_sampled is {options.max_times_sampled}, but each sequence of a "
                "queue is handed out once; leave max_times_sampled out"
            )
        if getattr(sampler, "pass_order", None) != limiter.order:
            raise SpecError(
                f"{name}: the sampler is a {type(sampler).__name__}; give one that takes each "
                f"sequence once, the {limiter.order} first (pass_order '{limiter.order}'), such "
                "as FifoSampleStrategy() for a Queue"
            )
    return limiter


def put(core: Core, limiter: object) -> None:
    """Let another limiter be in force, for everybody at once.

    Raises:
        SpecError: this table cannot have it; nothing has changed.
    """
    core.guard.run(_put_locked, core, limiter)


def _put_locked(core: Core, limiter: object) -> None:
    words = core.arena.words
    now = replace(core.options, maxlen=words[f.MAXLEN], max_sequences=words[f.MAX_SEQUENCES])
    core.pace.put_locked(checked(limiter, core.sampler, now))
    core.index.ring()  # whoever waits asks the new one
