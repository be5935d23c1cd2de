"""Processes with a pipe each: starting, hearing and ending them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch.multiprocessing

GRACE_S = 5.0  # for a member to finish what it is at, before it is told in harder ways


@dataclass
class Member:
    """One process and our end of its pipe."""

    process: SpawnProcess
    line: Connection[None, Any]

    def __str__(self) -> str:
        return f"{self.process.name} (pid {self.process.pid})"


@dataclass(frozen=True)
class Death:
    """A process that ended though nobody asked it to.

    Attributes:
        member: the process's name and id, as text.
        exit_code: as in ``Process.exitcode``: negative for a signal; None if it still lingers.
    """

    member: str
    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code is None:
            how = "hung up"
        elif self.exit_code < 0:
            how = f"was ended by {signal.Signals(-self.exit_code).name}"
        else:
            how = f"ended with exit code {self.exit_code}"
        return f"{self.member} {how}"


class Crew:
    """Processes that live as long as the ``with`` block, or shorter, but not longer.

    Each gets a pipe. A member's messages come up through it, and when our end is closed, by
    :meth:`__exit__` or by the death of this process, the member sees it and stops. In the same
    way the death of a member is seen here. A pipe per member, because a queue or an event that
    all share stays locked when one of them is killed while using it.
    """

    def __init__(self, name: str, count: int, target: Callable[..., None], *args: Any) -> None:
        """Prepares ``target(index, line, *args)`` for ``index`` 0 to ``count - 1``."""
        self.members: list[Member] = []
        self._name = name
        self._count = count
        self._target = target
        self._args = args

    def __enter__(self) -> Crew:
        try:
            with ctrl_c_later():
                for index in range(self._count):
                    self._start(index)
        except BaseException:  # one that cannot be started, or the Ctrl-C held back meanwhile
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        with ctrl_c_later():
            for member in self.members:
                member.line.close()
            processes = [member.process for member in self.members]
            for insist in (None, SpawnProcess.terminate, SpawnProcess.kill):
                end_all(processes, insist)
            self.members.clear()

    def __len__(self) -> int:
        """Members that are still with us."""
        return len(self.members)

    def __str__(self) -> str:
        return ", ".join(str(member) for member in self.members)

    def listen(self, wait_s: float) -> list[Any]:
        """What has come in: the members' messages, and a :class:`Death` for each one lost.

        Args:
            wait_s: how long to wait for something to come, at most; 0 only looks.
        """
        lines: dict[Any, Member] = {member.line: member for member in self.members}
        heard = []
        for line in connection.wait(list(lines), wait_s):
            member = lines[line]
            try:
                heard.append(member.line.recv())
            except (EOFError, ConnectionResetError):
                heard.append(self._lose(member))
        return heard

    def _start(self, index: int) -> None:
        context = torch.multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._target,
            args=(index, theirs, *self._args),
            name=f"{self._name}-{index}",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that the member holds the only copy, and its death ends the pipe
        self.members.append(Member(process, ours))

    def _lose(self, member: Member) -> Death:
        self.members.remove(member)
        member.line.close()
        member.process.join(GRACE_S)
        return Death(str(member), member.process.exitcode)


def end_all(processes: list[SpawnProcess], insist: Callable[[SpawnProcess], None] | None) -> None:
    """Waits for processes to end, after insisting in the given way; drops those that have."""
    for process in processes:
        if insist is not None:
            insist(process)
    deadline = time.monotonic() + GRACE_S
    for process in list(processes):
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is not None:
            process.close()
            processes.remove(process)


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Holds Ctrl-C back until the block is left, and for ever in processes started inside.

    A terminal sends Ctrl-C to every process of the program. The members must not die of it, not
    even while they are still importing: a blocked signal is inherited from the first moment.
    """
    resource_tracker.ensure_running()  # unblocks the signal when it is started, so do that first
    held: list[int] = []
    # Blocking alone would not hold it back here: another thread, say of a numerical library,
    # may receive the signal instead, and its handler runs in the main thread all the same.
    handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)
