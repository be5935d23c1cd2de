"""The one way tests use other processes.

A :class:`Crew` starts members in interpreters of their own, waits until every one of them is
ready, releases them together, and collects what they return before a deadline. A member that
raises, dies, or is late fails the test with its traceback; whatever happens, no member outlives
the ``with`` block::

    def add_many(table, first):
        for identity in range(first, first + 100):
            table.add_sequence(identity, small_sequence(identity, 20))
        return table.size()

    def test_two_writers(make_table, method):
        table = make_table()
        with Crew(method) as crew:
            for first in (0, 1000):
                crew.add(add_many, table, first)
            crew.go()
            sizes = crew.results()

Targets are module-level functions, because spawn and forkserver find them by their name. Every
member talks through a pipe of its own: a queue or event shared by the crew would be locked for
ever by a member that is killed while using it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

import torch.multiprocessing

METHODS = ("fork", "spawn", "forkserver")
DEADLINE_S = 120.0  # importing torch in a fresh interpreter takes seconds on a busy machine


_TELL_WHERE = signal.SIGUSR2


class CrewError(AssertionError):
    """A member failed, was late, or ended in another way than expected."""


@dataclass
class Link:
    """A member's side of its pipe; :func:`link` returns it inside a member."""

    pipe: Any

    def tell(self, message: Any) -> None:
        """Sends a message that the test receives with ``Member.hear``."""
        self.pipe.send(("message", message))

    def hear(self) -> Any:
        """Waits for what the test says with ``Member.tell``; EOFError when the test has gone."""
        return self.pipe.recv()

    def told(self) -> bool:
        """Whether a message of the test is waiting, without waiting for one."""
        return bool(self.pipe.poll())


_link: Link | None = None


def link() -> Link:
    """The pipe to the test, inside a member."""
    if _link is None:
        raise CrewError("link() is for members of a crew; the test itself has Member.tell")
    return _link


@dataclass
class Member:
    """One process of the crew, as the test sees it."""

    process: Any
    pipe: Any
    expected_exit: int | None = 0  # None: whatever it is
    result: Any = None
    done: bool = False
    messages: list[Any] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id."""
        return int(self.process.pid)

    def tell(self, message: Any) -> None:
        """Sends a message that the member receives with ``link().hear()``."""
        self.pipe.send(message)

    def hear(self, deadline_s: float = DEADLINE_S) -> Any:
        """The member's next message; fails when it ends or is silent until the deadline."""
        until = time.monotonic() + deadline_s
        while not self.messages:
            if self.done:
                raise CrewError(f"{self} ended without saying anything more")
            self._listen(until)
        return self.messages.pop(0)

    def look(self) -> None:
        """Takes in what the member has said so far; fails when it has raised or ended."""
        while not self.done and self.pipe.poll():
            self._listen(time.monotonic() + DEADLINE_S)
        if self.done:
            raise CrewError(f"{self} has ended")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends the member with a signal, which from then on is how it is expected to end."""
        self.expected_exit = -int(number)
        os.kill(self.pid, number)

    def join(self, deadline_s: float = DEADLINE_S) -> None:
        """Waits until the process has ended and checks how."""
        until = time.monotonic() + deadline_s
        while not self.done:
            self._listen(until)
        self.process.join(max(0.0, until - time.monotonic()))
        code = self.process.exitcode
        if code is None:
            raise CrewError(f"{self} said its last and did not end")
        if self.expected_exit is not None and code != self.expected_exit:
            raise CrewError(f"{self} ended with {code}, expected {self.expected_exit}")

    def _listen(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0 or not connection.wait([self.pipe], left):
            with suppress(ProcessLookupError):
                os.kill(self.pid, _TELL_WHERE)
                time.sleep(0.5)
            raise CrewError(f"{self} was silent until the deadline; stderr says what it is doing")
        try:
            kind, value = self.pipe.recv()
        except (EOFError, ConnectionError):  # died, or ended by a signal
            self.done = True
            return
        if kind == "error":
            self.done = True
            raise CrewError(f"{self} raised:\n{value}")
        if kind == "result":
            self.result, self.done = value, True
        else:
            self.messages.append(value)

    def __str__(self) -> str:
        return f"member {self.process.name} (pid {self.process.pid})"


class Crew:
    """Processes that start together, end before a deadline, and are ended otherwise."""

    def __init__(self, method: str = "fork", *, deadline_s: float = DEADLINE_S) -> None:
        self.context = torch.multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload(["torch"])  # once, not by every member
        self.deadline_s = deadline_s
        self.members: list[Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        for member in self.members:
            if member.process.is_alive():
                member.process.kill()
            member.process.join()
            member.pipe.close()
            member.process.close()

    def add(self, target: Callable[..., Any], *args: Any) -> Member:
        """Starts a process that will call ``target(*args)`` when told to go."""
        ours, theirs = self.context.Pipe()
        name = f"{getattr(target, '__name__', 'target')}-{len(self.members)}"
        process = self.context.Process(
            target=_member, args=(theirs, ours, target, args), name=name, daemon=True
        )
        process.start()
        theirs.close()  # so that the end of the member is the end of the pipe
        member = Member(process, ours)
        self.members.append(member)
        return member

    def start(self, target: Callable[..., Any], *args: Any) -> Member:
        """Starts a process that waits for nobody: for crews whose members come and go."""
        member = self.add(target, *args)
        member.tell("go")
        return member

    def dismiss(self, member: Member) -> None:
        """Forgets a member that has ended, so that a long test does not run out of pipes."""
        self.members.remove(member)
        member.pipe.close()
        member.process.close()

    def go(self) -> None:
        """Waits until every member is ready, then releases them all."""
        for member in self.members:
            if (said := member.hear(self.deadline_s)) != "ready":
                raise CrewError(f"{member} said {said!r} instead of being ready")
        for member in self.members:
            member.tell("go")

    def results(self) -> list[Any]:
        """What each member returned, in the order they were added; None of one that was killed."""
        until = time.monotonic() + self.deadline_s
        for member in self.members:
            member.join(max(0.0, until - time.monotonic()))
        return [member.result for member in self.members]


def _member(pipe: Any, other_end: Any, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _link
    faulthandler.register(_TELL_WHERE, file=2)
    # Under fork this process holds the test's end too and would never see it close.
    other_end.close()
    torch.set_num_threads(1)
    _link = Link(pipe)
    _link.tell("ready")
    _link.hear()
    try:
        result = target(*args)
    except BaseException:
        pipe.send(("error", traceback.format_exc()))
        raise SystemExit(1) from None
    pipe.send(("result", result))
