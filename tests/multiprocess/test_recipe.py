"""The recipe itself: it reports what went wrong and leaves nobody behind."""

from __future__ import annotations

import os
import signal

import pytest

from tests.multiprocess.recipe import METHODS, Crew, CrewError, link


def _double(value: int) -> tuple[int, int]:
    return value * 2, os.getpid()


def _raise() -> None:
    raise RuntimeError("the reason")


def _wait_for_ever() -> None:
    link().hear()


def _echo() -> None:
    while (said := link().hear()) != "stop":
        link().tell(said + 1)


def _leave(code: int) -> None:
    os._exit(code)


@pytest.mark.parametrize("method", METHODS)
def test_results_come_in_order_from_processes_of_their_own(method: str) -> None:
    with Crew(method) as crew:
        for value in (1, 2):
            crew.add(_double, value)
        crew.go()
        (first, one), (second, other) = crew.results()
    assert (first, second) == (2, 4)
    assert len({one, other, os.getpid()}) == 3


def test_a_member_that_raises_fails_the_test_with_its_traceback() -> None:
    with Crew() as crew:
        crew.add(_raise)
        crew.go()
        with pytest.raises(CrewError, match="RuntimeError: the reason"):
            crew.results()


def test_a_late_member_fails_the_test_and_is_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with Crew(deadline_s=0.2) as crew:
        member = crew.add(_wait_for_ever)
        crew.deadline_s = 30
        crew.go()
        crew.deadline_s = 0.2
        pid = member.pid
        with pytest.raises(CrewError, match="silent until the deadline"):
            crew.results()
    assert "in _wait_for_ever" in capfd.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_exit_code_is_checked_even_without_an_exception() -> None:
    with Crew() as crew:
        crew.add(_leave, 3)
        crew.go()
        with pytest.raises(CrewError, match="ended with 3, expected 0"):
            crew.results()


def test_a_killed_member_is_expected_to_be_killed() -> None:
    with Crew() as crew:
        killed, other = crew.add(_wait_for_ever), crew.add(_double, 4)
        crew.go()
        killed.kill(signal.SIGKILL)
        none, (doubled, _) = crew.results()
    assert none is None and doubled == 8
    assert other.result[0] == 8


def test_members_and_the_test_can_talk() -> None:
    with Crew() as crew:
        member = crew.add(_echo)
        crew.go()
        member.tell(1)
        assert member.hear() == 2
        member.tell("stop")
        crew.results()


def test_members_come_and_go() -> None:
    with Crew() as crew:
        first = crew.start(_wait_for_ever)
        first.look()
        first.kill()
        first.join()
        with pytest.raises(CrewError, match="has ended"):
            first.look()
        crew.dismiss(first)
        second = crew.start(_echo)
        second.tell(1)
        assert second.hear() == "ready" and second.hear() == 2
        second.tell("stop")
        assert crew.results() == [None]


def test_a_look_reports_what_went_wrong() -> None:
    with Crew() as crew:
        member = crew.start(_raise)
        assert member.hear() == "ready"
        assert member.pipe.poll(60)
        with pytest.raises(CrewError, match="RuntimeError: the reason"):
            member.look()
