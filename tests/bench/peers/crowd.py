"""Writers flat out and one process that samples, in turns."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

from tests.bench.peers.base import Call, Setup, Shared, sequences

_READY_S = 120.0
_PAUSE_S = 0.1  # from telling the writers when to start until they do


class Crowd:
    """The processes around one shared table; those that have no turn wait for a message."""

    def __init__(self, shared: Shared, setup: Setup) -> None:
        self._shared = shared
        self._steps = setup.steps
        self._context: Any = multiprocessing.get_context(shared.method)
        self._writers: list[tuple[Any, Any]] = []

    def turn(self, writers: int, seconds: float, watched: bool) -> dict[str, Any]:
        """So many writers and this process for so long.

        Returns:
            "steps" added and "samples" drawn of 256 transitions, the "seconds" that took, "us" of
            every sample; if ``watched``, the nanoseconds in which the lock was "held" by anybody
            and those of "waiting" for it, of all processes together.
        """
        shared = self._shared
        while len(self._writers) < writers:
            self._start()
        begin = time.monotonic() + _PAUSE_S
        pipes = [pipe for pipe, _ in self._writers[:writers]]
        for pipe in pipes:
            pipe.send((begin, seconds, watched))
        read = shared.watch(shared.handle) if watched and shared.watch else None
        time.sleep(max(begin - time.monotonic(), 0))
        times = _sampling(shared.sample, begin + seconds)
        held = waited = 0
        if read:
            held, waited = read()
        steps = 0
        for pipe in pipes:
            calls, theirs, waits = pipe.recv()
            steps, held, waited = steps + calls * self._steps, held + theirs, waited + waits
        return {
            "steps": steps,
            "samples": len(times),
            "seconds": seconds,
            "us": times,
            "held_ns": held,
            "waiting_ns": waited,
        }

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        shared = self._shared
        process = self._context.Process(
            target=_write,
            args=(theirs, shared.handle, shared.writer, len(self._writers), shared.watch),
            daemon=True,
        )
        process.start()
        theirs.close()
        if not ours.poll(_READY_S):
            raise TimeoutError("a writer did not get ready")
        ours.recv()
        self._writers.append((ours, process))

    def close(self) -> None:
        """Ends the writers."""
        for pipe, _ in self._writers:
            # Said, and not by closing: a forked writer has a copy of this end.
            with contextlib.suppress(OSError):  # it went first
                pipe.send(None)
        for pipe, process in self._writers:
            process.join(5)
            pipe.close()
            if process.is_alive():
                process.kill()
                process.join()
        self._writers.clear()


def attached_bytes(shared: Shared) -> int:
    """What a process takes for itself when it has the table, beside one that has it not."""
    context: Any = multiprocessing.get_context(shared.method)
    taken = []
    for handle in (None, shared.handle):
        ours, theirs = context.Pipe()
        process = context.Process(target=_weigh, args=(theirs, shared.writer, handle), daemon=True)
        process.start()
        if not ours.poll(_READY_S):
            process.kill()
            raise TimeoutError("a process did not get ready")
        taken.append(int(ours.recv()))
        process.join()
    return max(taken[1] - taken[0], 0)


def _weigh(pipe: Any, make: Callable[[Any, int], Call], handle: Any) -> None:
    source = sequences(Setup(), Setup.steps)
    next(source)
    if handle is not None:
        make(handle, 0)()
    with open("/proc/self/smaps_rollup") as file:
        sizes = dict(line.split(":") for line in file.read().splitlines()[1:])
    pipe.send(1024 * sum(int(sizes[f"Private_{kind}"].split()[0]) for kind in ("Clean", "Dirty")))


def _sampling(sample: Call, end: float) -> list[float]:
    times = []
    while time.monotonic() < end:
        begin = time.perf_counter_ns()
        batch = sample()
        times.append((time.perf_counter_ns() - begin) / 1000)
        del batch
    return times


def _write(
    pipe: Any,
    handle: Any,
    make: Callable[[Any, int], Call],
    number: int,
    watch: Callable[[Any], Callable[[], tuple[int, int]]] | None,
) -> None:
    _single_threaded()
    parent = os.getppid()
    add = make(handle, number)
    add()
    pipe.send("ready")
    while True:
        while not pipe.poll(1.0):
            if os.getppid() != parent:  # died; for the reason above that may be all there is of it
                return
        try:
            order = pipe.recv()
        except (EOFError, ConnectionError):
            return
        if order is None:
            return
        begin, seconds, watched = order
        read = watch(handle) if watched and watch else None
        time.sleep(max(begin - time.monotonic(), 0))
        calls, end = 0, begin + seconds
        while time.monotonic() < end:
            add()
            calls += 1
        held, waited = read() if read else (0, 0)
        pipe.send((calls, held, waited))


def _single_threaded() -> None:
    try:
        import torch
    except ImportError:  # a peer without it
        return
    torch.set_num_threads(1)
