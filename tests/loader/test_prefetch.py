"""The thread that makes things ahead: in order, so many, and gone when nobody takes them."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shmtable import SpecError, prefetch
from shmtable.prefetch import Prefetch
from tests.interrupts import cut_off
from tests.loader.conftest import prefetchers

ROOT = Path(__file__).parents[2]
FORKED = "ignore:This process:DeprecationWarning"  # of Python 3.12 and later


def counter() -> Callable[[], int]:
    """Makes 0, 1, 2 ..."""
    return itertools.count().__next__


def taken(source: Prefetch[int]) -> Iterator[int]:
    """As a loader iterates: whatever ends the iteration ends the thread."""
    with closing(source):
        yield from source


@pytest.mark.parametrize("ahead", [1, 3])
def test_everything_comes_once_and_in_order(ahead: int) -> None:
    source = Prefetch(counter(), ahead, 50)
    assert list(source) == list(range(50))
    assert list(source) == []


def test_without_a_count_it_goes_on() -> None:
    with closing(Prefetch(counter(), 2)) as source:
        assert list(itertools.islice(source, 200)) == list(range(200))


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_so_many_are_made_ahead_and_no_more(ahead: int) -> None:
    made: list[int] = []
    reached = threading.Semaphore(0)

    def make() -> int:
        made.append(len(made))
        reached.release()
        return len(made)

    with closing(Prefetch(make, ahead)) as source:
        assert prefetchers() == []  # not before the first is asked for
        for number in range(1, 4):
            next(source)
            for _ in range(ahead + 1 if number == 1 else 1):
                assert reached.acquire(timeout=60)
            assert len(made) == number + ahead
    assert len(made) == 3 + ahead


def test_an_error_comes_after_what_was_made_before_and_says_where_it_arose() -> None:
    error = ValueError("the third one")
    numbers = counter()

    def fails_at_three() -> int:
        if (number := numbers()) == 3:
            raise error
        return number

    source = Prefetch(fails_at_three, 5)
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third one") as caught:
        next(source)
    assert caught.value is error
    assert "fails_at_three" in "".join(traceback.format_tb(error.__traceback__))
    assert prefetchers() == []
    with pytest.raises(StopIteration):
        next(source)


def test_a_break_ends_the_thread() -> None:
    for number in taken(Prefetch(counter(), 2)):
        if number == 4:
            assert len(prefetchers()) == 1
            break
    assert prefetchers() == []


def test_an_error_in_the_loop_ends_the_thread() -> None:
    def loop() -> None:
        for number in taken(Prefetch(counter(), 2)):
            raise KeyboardInterrupt(number)

    with pytest.raises(KeyboardInterrupt):
        loop()
    gc.collect()  # the traceback held the iterator
    assert prefetchers() == []


def test_the_collector_ends_the_thread() -> None:
    cycle: dict[str, Any] = {"iterator": taken(Prefetch(counter(), 2))}
    cycle["itself"] = cycle
    next(cycle["iterator"])
    assert len(prefetchers()) == 1
    del cycle
    gc.collect()
    assert prefetchers() == []


def test_closing_in_the_thread_itself_does_not_wait_for_it() -> None:
    source: Prefetch[int]

    def make() -> int:
        source.close()  # as the collector may do, from anywhere
        return 1

    source = Prefetch(make, 1)
    assert list(source) == []


def test_closing_inside_a_section_does_not_wait_for_a_thread_that_may_need_the_lock(
    make_table,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def make() -> int:
        if begun.is_set():
            go_on.wait()
        begun.set()
        return 1

    table = make_table()
    source = Prefetch(make, 2)
    next(source)
    (thread,) = prefetchers()
    table._core.guard.run(source.close)
    assert thread.is_alive()
    go_on.set()
    thread.join()


def test_closing_leaves_a_thread_alone_that_does_not_come_to_an_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prefetch, "END_S", 0.01)
    begun, go_on = threading.Event(), threading.Event()

    def make() -> int:
        if begun.is_set():
            go_on.wait()
        begun.set()
        return 1

    source = Prefetch(make, 2)
    next(source)
    (thread,) = prefetchers()
    source.close()
    assert "still making one after 0.01 s" in caplog.text
    go_on.set()
    thread.join()


def test_who_has_no_iterator_any_more_has_no_thread() -> None:
    next(Prefetch(counter(), 1))
    for thread in prefetchers():
        thread.join()


def test_a_thread_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuses)
        with pytest.raises(RuntimeError, match="can't start"):
            list(taken(Prefetch(counter(), 2, 3)))


def test_a_forked_child_is_told_to_make_its_own() -> None:
    with closing(Prefetch(counter(), 2)) as source:
        next(source)
        child = os.fork()
        if not child:
            try:
                next(source)
            except SpecError:
                source.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert next(source) == 1


HELD_AT_EXIT = """
import atexit
import multiprocessing as mp
import sys
import threading
from multiprocessing.util import Finalize
from shmtable import ArrayMemoryTable, Column, FifoEjectionStrategy, MemoryLoader
from shmtable import UniformSampleStrategy

def check():
    names = [thread.name for thread in threading.enumerate()]
    if "shmtable-prefetch" in names:
        print("still running")

def iterate(table):
    global held
    atexit.register(check)  # runs after whatever is registered from here on
    Finalize(None, check, exitpriority=5)
    held = iter(MemoryLoader(table, 1, 1, "size", prefetch=2, timeout_s=None))
    next(held)

if __name__ == "__main__":
    table = ArrayMemoryTable(
        Column("actions", (), "int64"), maxlen=100, max_times_sampled=3,
        sampler=UniformSampleStrategy(), ejector=FifoEjectionStrategy(), name=sys.argv[1],
    )
    table.add_sequence(1, {"actions": [1]})
    if sys.argv[2] == "child":
        child = mp.get_context("fork").Process(target=iterate, args=(table,))
        child.start()
        child.join()
        assert child.exitcode == 0, child.exitcode
        assert table.stats().recoveries == 0
    else:
        iterate(table)
    print("last line")
"""


@pytest.mark.parametrize("where", ["main", "child"])
def test_an_iterator_still_held_does_not_keep_the_process_from_ending(
    unique_name, where: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", FORKED, "-c", HELD_AT_EXIT, unique_name(), where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "last line\n", "")


def test_cut_off_at_any_point_a_loop_leaves_no_thread_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Python prints and drops what is raised in a generator that it closes by itself.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    def loop() -> None:
        for batch in as_a_loader(Prefetch(counter(), 1)):
            if batch == [2]:
                break

    def as_a_loader(source: Prefetch[int]) -> Iterator[list[int]]:
        with closing(source):
            for number in source:
                yield [number]

    files = ("shmtable/prefetch.py", "contextlib.py")
    point = 1
    while cut_off(loop, point, files, KeyboardInterrupt):
        gc.collect()
        until = time.monotonic() + 10
        while prefetchers():
            assert time.monotonic() < until, f"cut off at point {point}"
            time.sleep(0.01)
        point += 1
    assert point > 20
