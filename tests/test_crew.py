"""Processes with a pipe each: heard, missed and ended, whatever they do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from shmtable import crew as crew_module
from shmtable.crew import Crew, Death, ctrl_c_later
from tests import members

DEADLINE_S = 120.0


def hear(crew: Crew, count: int) -> list[object]:
    """The next so many messages and deaths."""
    until, heard = time.monotonic() + DEADLINE_S, []
    while len(heard) < count:
        left = until - time.monotonic()
        assert left > 0, f"only heard {heard}"
        heard += crew.listen(left)
    return heard


def test_members_are_heard_and_the_dead_are_named_and_missed():
    with Crew("actor", 2, members.greet, "hello") as crew:
        heard = sorted(hear(crew, 2))
        assert [said[:2] for said in heard] == [(0, "hello"), (1, "hello")]
        victim = heard[1][2]
        assert f"actor-1 (pid {victim})" in str(crew)
        os.kill(victim, signal.SIGKILL)
        assert [str(death) for death in hear(crew, 1)] == [
            f"actor-1 (pid {victim}) was ended by SIGKILL"
        ]
        assert len(crew) == 1
        assert crew.listen(0.0) == []
    assert len(crew) == 0


def test_a_member_that_ends_by_itself_is_a_death_too():
    with Crew("actor", 2, members.fail) as crew:
        (death,) = hear(crew, 1)
        assert isinstance(death, Death)
        assert death.exit_code == 3
        assert str(death).startswith("actor-0 (pid ")
        assert str(death).endswith(" ended with exit code 3")
        assert len(crew) == 1


@pytest.mark.parametrize("forgiving", [True, False])
def test_members_that_do_not_listen_are_ended_all_the_same(forgiving, monkeypatch):
    monkeypatch.setattr(crew_module, "GRACE_S", 0.2)
    with Crew("actor", 1, members.stay, forgiving) as crew:
        # Deaf to Ctrl-C from the first moment, because the signal was blocked at its start.
        assert hear(crew, 1) == [True]
        process = crew.members[0].process
    with pytest.raises(ValueError, match="closed"):  # so it was ended and waited for
        process.is_alive()


@pytest.mark.parametrize("threads", [0, 1])
def test_ctrl_c_is_held_back_and_not_lost(threads):
    done, finished = threading.Event(), False
    others = [threading.Thread(target=done.wait) for _ in range(threads)]
    for other in others:
        other.start()  # the signal is not blocked there, so that is where it will arrive
    try:
        with pytest.raises(KeyboardInterrupt):
            with ctrl_c_later():
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100_000):
                    pass  # a handler would run between two of these
                finished = True
    finally:
        done.set()
        for other in others:
            other.join()
    assert finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class Cargo:
    """Travels to the members; something happens as it is packed for the second one."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens
        self._packed = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self._packed += 1
        if self._packed == 2:
            self._happens()
        return str, ("hello",)


def out_of_memory() -> None:
    raise MemoryError


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("happens", "error"), [(out_of_memory, MemoryError), (ctrl_c, KeyboardInterrupt)]
)
def test_a_crew_that_is_not_complete_is_ended(happens, error):
    crew = Crew("actor", 3, members.greet, Cargo(happens))
    with pytest.raises(error):
        crew.__enter__()
    assert len(crew) == 0
    assert multiprocessing.active_children() == []
