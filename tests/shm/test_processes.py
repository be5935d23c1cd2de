"""Arenas between processes: addresses, ends of processes, races for a name."""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.multiprocessing

from shmtable.errors import ArenaInUseError, ArenaNotFoundError
from shmtable.shm import files, header, places, process
from shmtable.shm.address import Address, Holder
from shmtable.shm.arena import Arena
from shmtable.shm.leftovers import sweep
from tests.multiprocess.recipe import METHODS, Crew, link
from tests.shm.helpers import Parcel, descriptors, small_plan


def use(parcels: list[Parcel], again: list[Parcel], word: int) -> list[tuple[int, bool, bool]]:
    found = []
    for parcel, other in zip(parcels, again, strict=True):
        arena = parcel.arena
        arena.words[word] = os.getpid()
        before = descriptors()
        Arena.open(arena.address()).close()
        same = not descriptors() - before
        found.append((arena.id, other.arena is arena, same and arena.creator != process.current()))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_an_address_reaches_every_kind_of_child(
    make_arena: Callable[..., Arena], unique_name, tmp_path: Path, method: str
) -> None:
    arenas = [
        make_arena(),
        make_arena(name=unique_name(), lock="portable"),
        make_arena(name="t", directory=str(tmp_path)),
    ]
    with Crew(method) as crew:
        # Each arena twice, not merely the same object twice.
        member = crew.add(use, *[[Parcel(arena) for arena in arenas] for _ in range(2)], 100)
        crew.go()
        assert crew.results() == [[(arena.id, True, True) for arena in arenas]]
        assert [arena.words[100] for arena in arenas] == [member.pid] * 3


def open_again(parcel: Parcel) -> bool:
    """Close what a spawned child was given and open its address again, the other way."""
    address = parcel.arena.address()
    number = parcel.arena.id
    parcel.arena.close()
    del parcel
    gc.collect()
    spare = [os.open("/", os.O_RDONLY) for _ in range(5)]  # takes the number that became free
    arena = Arena.open(address)
    arena.words[110] = 1
    for fd in spare:
        os.close(fd)
    return arena.id == number


def test_a_spawned_child_can_close_and_open_again(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    with Crew("spawn") as crew:
        crew.add(open_again, Parcel(arena))
        crew.go()
        assert crew.results() == [True]
    assert arena.words[110] == 1


def send_on(queue: object, parcel: Parcel) -> None:
    queue.put(parcel)  # type: ignore[attr-defined]
    queue.close()  # type: ignore[attr-defined]
    queue.join_thread()  # type: ignore[attr-defined]


def receive(queue: object) -> int:
    arena = queue.get(timeout=60).arena  # type: ignore[attr-defined]
    arena.words[111] = 7
    return int(arena.id)


def test_a_queue_whose_sender_has_exited(make_arena: Callable[..., Arena]) -> None:
    # The creator is asked instead. The receiver is older than the arena: it inherited nothing.
    queue = torch.multiprocessing.get_context("fork").Queue()
    with Crew("fork") as crew:
        receiver = crew.add(receive, queue)
        arena = make_arena()
        sender = crew.add(send_on, queue, Parcel(arena))
        for member in (receiver, sender):
            assert member.hear() == "ready"
        sender.tell("go")
        sender.join()
        receiver.tell("go")
        receiver.join()
        assert receiver.result == arena.id
    assert arena.words[111] == 7
    queue.close()
    queue.join_thread()


def test_an_address_nobody_can_serve(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    here = arena.address()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    start = here.holders[0].start
    holders = (Holder(gone.pid, 0, 3), Holder(gone.pid, 1, 3), Holder(os.getpid(), start + 1, 3))
    lost = Address(arena.id + 1, None, None, None, holders)
    with pytest.raises(
        ArenaNotFoundError, match="cannot be reached any more.*give the table a name"
    ):
        Arena.open(lost)
    wrong = Address(arena.id + 1, None, None, None, here.holders)
    with pytest.raises(ArenaNotFoundError, match="is another table by now"):
        Arena.open(wrong)
    assert not arena.closed and files.is_open(arena._descriptor.key)


def test_a_holder_whose_number_was_given_again(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    address = arena.address()
    me = address.holders[0]
    another = Holder(me.pid, me.start + 1, me.fd)
    child = os.fork()
    if child == 0:
        status = 9
        try:
            arena.close()  # or it would be found open here
            try:
                Arena.open(dataclasses.replace(address, holders=(another,)))
            except ArenaNotFoundError:
                status = int(Arena.open(address).id != arena.id)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_an_arena_open_here_needs_no_holder(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    assert Arena.open(dataclasses.replace(arena.address(), holders=())) is arena
    arena.close()


def test_a_holders_descriptor_that_is_something_else(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    other = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    me = Arena.create(small_plan)
    holder = me.address().holders[0]
    me.close()
    for fd in (reader, other, 9999):
        address = Address(5, None, None, None, (Holder(holder.pid, holder.start, fd),))
        with pytest.raises(ArenaNotFoundError, match="cannot be reached any more"):
            Arena.open(address)
        if fd != 9999:
            os.fstat(fd)  # still open: it was not ours to close
    for fd in (reader, writer, other):
        os.close(fd)


class Handle:
    """As a ``reduction.DupFd`` that has come into the wrong process."""

    def __init__(self, fd: int) -> None:
        self.detach = lambda: fd


def test_a_handle_in_the_wrong_process_takes_nothing_over(make_arena, tmp_path: Path) -> None:
    arena, other = make_arena(), make_arena()
    reader, writer = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    for fd in (reader, file, 9999, other._descriptor.fd):
        address = Address(arena.id + 1, None, None, None, (), Handle(fd))
        with pytest.raises(ArenaNotFoundError, match="cannot be reached any more"):
            Arena.open(address)
        if fd != 9999:
            os.fstat(fd)
    for fd in (reader, writer, file):
        os.close(fd)


def test_an_address_is_small_and_says_where(make_arena, unique_name) -> None:
    arena = make_arena()
    assert len(pickle.dumps(arena.address())) < 400
    assert str(arena.address()) == f"unnamed table {arena.id:032x}"
    named = make_arena(name=unique_name())
    assert str(named.address()) == named.path


# -- ends of processes ---------------------------------------------------------------------------


def test_a_forked_child_never_removes_the_name(make_arena, unique_name) -> None:
    arena = make_arena(name=unique_name())
    child = os.fork()
    if child == 0:
        try:
            arena.close()
            arena._parting.now()
        finally:
            os._exit(0 if os.path.exists(str(arena.path)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.path.exists(str(arena.path))
    assert not sweep_of(arena.path)


def sweep_of(path: str | None) -> bool:
    return path in sweep()


def test_the_name_goes_at_exit(unique_name) -> None:
    code = """
import sys
from shmtable.shm.arena import Arena
from tests.shm.helpers import small_plan
arena = Arena.create(small_plan, name=sys.argv[1])
print(arena.path)
"""
    command = [sys.executable, "-c", code, unique_name()]
    root = Path(__file__).parents[2]
    path = subprocess.run(command, capture_output=True, timeout=120, cwd=root).stdout.strip()
    assert path.startswith(b"/dev/shm/") and not os.path.exists(path)


def create(name: str) -> str:
    global _kept
    _kept = Arena.create(small_plan, name=name)
    _kept.words[120] = 42
    link().tell(_kept.path)
    link().hear()
    return str(_kept.path)


_kept: Arena | None = None


def test_the_name_goes_when_a_worker_ends(unique_name) -> None:
    # A forked worker leaves without running atexit.
    with Crew("fork") as crew:
        member = crew.add(create, unique_name())
        crew.go()
        assert os.path.exists(member.hear())
        member.tell("end")
        (path,) = crew.results()
        assert not os.path.exists(path)


@pytest.mark.parametrize("way", ["create", "sweep", "attach"])
def test_what_a_killed_owner_left(way: str, unique_name, make_arena) -> None:
    name = unique_name()
    with Crew("fork") as crew:
        member = crew.add(create, name)
        crew.go()
        path = member.hear()
        with pytest.raises(ArenaInUseError, match=rf"is in use by process {member.pid} \(.+\);"):
            make_arena(name=name)
        assert not sweep_of(path)
        member.kill()
        crew.results()
    assert os.path.exists(path)
    if way == "create":
        assert make_arena(name=name).creator == process.current()
    elif way == "sweep":
        assert sweep_of(path)
        assert not os.path.exists(path)
    else:
        arena = Arena.attach(name)
        assert arena.first and arena.creator != process.current() and arena.words[120] == 42
        arena.close()
        assert os.path.exists(path)  # not the owner
        assert sweep_of(path)


def attach_and_wait(name: str) -> int:
    arena = Arena.attach(name)
    link().tell("attached")
    link().hear()
    value = arena.words[120]
    arena.close()
    return int(value)


def test_a_user_outlives_the_owner(unique_name) -> None:
    name = unique_name()
    with Crew("fork") as crew:
        user = crew.add(attach_and_wait, name)
        owner = crew.add(create, name)
        for member in (user, owner):
            assert member.hear() == "ready"
        owner.tell("go")
        path = owner.hear()
        user.tell("go")
        assert user.hear() == "attached"
        owner.kill()
        owner.join()
        assert not sweep_of(path)  # somebody still uses it
        user.tell("go on")
        user.join()
        assert user.result == 42
    assert sweep_of(path)


def race(name: str, rounds: int) -> list[int]:
    won = []
    for number in range(rounds):
        link().tell(number)
        link().hear()
        try:
            arena = Arena.create(small_plan, name=name)
        except ArenaInUseError:
            arena = Arena.attach(name)
            assert arena.json["what"] == "a tëst" and arena.words[header.MAGIC]
        else:
            won.append(number)
        link().tell(arena.id)
        link().hear()  # nobody closes before all have it
        arena.close()
    return won


def test_one_of_several_creators_wins(unique_name) -> None:
    name, rounds = unique_name(), 12
    with Crew("fork") as crew:
        members = [crew.add(race, name, rounds) for _ in range(4)]
        crew.go()
        for number in range(rounds):
            assert [member.hear() for member in members] == [number] * 4
            for member in members:
                member.tell("go")
            assert len({member.hear() for member in members}) == 1
            for member in members:
                member.tell("close")
        winners = sorted(number for won in crew.results() for number in won)
    assert winners == list(range(rounds))
    assert not os.path.exists(places.path_of(name, None))


def create_until_killed(name: str) -> None:
    link().tell("begin")
    while True:
        Arena.create(small_plan, name=name).close()


def test_a_creator_killed_at_any_moment_blocks_nobody(unique_name, make_arena) -> None:
    name = unique_name()
    for delay_s in (0.0, 0.001, 0.003, 0.007, 0.015):
        with Crew("fork") as crew:
            member = crew.add(create_until_killed, name)
            crew.go()
            member.hear()
            signal.sigtimedwait([], delay_s)  # let it come to another point of its work
            member.kill()
            crew.results()
        arena = make_arena(name=name)
        assert arena.creator == process.current()
        arena.close()
