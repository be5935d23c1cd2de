"""Tables on disk: closed by all, left by killed processes, and after a stop of the machine."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import ArenaUncleanError, ArrayMemoryTable
from shmtable.index import fields as f
from shmtable.shm import durable, header, process
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

ANOTHER_BOOT = 12345
MAXLEN = 100


@pytest.fixture
def disk(tmp_path: Path) -> dict[str, Any]:
    """Where the tables lie."""
    return {"name": "t", "directory": str(tmp_path)}


def make(disk: dict[str, Any], **options: Any) -> ArrayMemoryTable:
    return content.make(maxlen=MAXLEN, **disk, **options)


def file_of(disk: dict[str, Any]) -> Path:
    return Path(disk["directory"]) / "t.shmtable"


def word(disk: dict[str, Any], number: int) -> int:
    with file_of(disk).open("rb") as file:
        file.seek(8 * number)
        return int(struct.unpack("<q", file.read(8))[0])


def set_word(disk: dict[str, Any], number: int, value: int) -> None:
    with file_of(disk).open("r+b") as file:
        file.seek(8 * number)
        file.write(struct.pack("<q", value))


def leave(
    disk: dict[str, Any], *, at: Callable[[ArrayMemoryTable], object], **options: Any
) -> None:
    """A process makes a table, does something with it, and is killed."""
    child = os.fork()
    if child == 0:
        table = make(disk, **options)  # kept: who drops it would close it
        at(table)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def fill(table: ArrayMemoryTable) -> None:
    for identity in range(5):
        table.add_sequence(identity, content.sequence(identity, 10))


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine starts anew: everything that was written has reached the disk, by luck."""
    monkeypatch.setattr(process, "boot_id", lambda: ANOTHER_BOOT)


def attach_recovered(disk: dict[str, Any], says: str) -> ArrayMemoryTable:
    with pytest.warns(UserWarning, match=says):
        return ArrayMemoryTable.attach(**disk, recover=True)


LOCKS = pytest.mark.parametrize("lock", ["robust", "portable"])


@LOCKS
def test_the_last_to_close_marks_the_file(disk, lock: str, monkeypatch) -> None:
    table = make(disk, lock=lock)
    fill(table)
    assert word(disk, header.CLEAN) == 0
    table.close()
    assert word(disk, header.CLEAN) == 1
    restart(monkeypatch)
    with ArrayMemoryTable.attach(**disk) as again:
        assert word(disk, header.CLEAN) == 0
        assert again.identities().tolist() == [0, 1, 2, 3, 4]
    assert word(disk, header.CLEAN) == 1


def _hold(table: ArrayMemoryTable) -> None:
    table.size()
    link().tell("here")
    link().hear()
    table.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("close", [True, False])
def test_who_lets_go_before_the_last_does_not_mark(disk, method: str, close: bool) -> None:
    table = make(disk)
    with Crew(method) as crew:
        member = crew.add(_hold if close else _leave_open, table)
        crew.go()
        assert member.hear() == "here"
        table.close()
        assert word(disk, header.CLEAN) == 0
        member.tell("close")
        crew.results()
    assert word(disk, header.CLEAN) == 1


def _leave_open(table: ArrayMemoryTable) -> None:
    table.size()
    link().tell("here")
    link().hear()


def test_a_table_that_is_dropped_is_marked(disk) -> None:
    table = make(disk)
    del table
    assert word(disk, header.CLEAN) == 1


def test_a_finaliser_inside_an_attachment_marks_nothing(disk) -> None:
    from shmtable.shm import places

    table = make(disk)
    with places.name_lock(str(file_of(disk))):
        table.close()  # would wait for itself
    assert word(disk, header.CLEAN) == 0


def test_the_mark_is_gone_from_the_disk_before_anything_changes(disk, monkeypatch) -> None:
    make(disk).close()
    before = file_of(disk).read_bytes()[header.HEADER_BYTES : 1 << 20]
    real, seen = durable.sync, []

    def sync(fd: int, memory: Any, spans: Any, where: str) -> None:
        with file_of(disk).open("rb") as file:
            now = file.read(1 << 20)[header.HEADER_BYTES :]
        seen.append((list(spans), word(disk, header.CLEAN), now == before))
        real(fd, memory, spans, where)

    monkeypatch.setattr(durable, "sync", sync)
    ArrayMemoryTable.attach(**disk).close()
    assert seen == [([(0, header.HEADER_BYTES)], 0, True)]


@LOCKS
def test_killed_processes_leave_a_table_as_long_as_the_machine_runs(disk, lock: str) -> None:
    leave(disk, at=fill, lock=lock)
    assert word(disk, header.CLEAN) == 0
    with ArrayMemoryTable.attach(**disk) as table:
        assert table.identities().tolist() == [0, 1, 2, 3, 4]
        assert table.check() == []


@LOCKS
def test_in_use_when_the_machine_stopped(disk, lock: str, monkeypatch) -> None:
    leave(disk, at=fill, lock=lock)
    before = file_of(disk).read_bytes()[:8192]
    restart(monkeypatch)
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(
            ArenaUncleanError,
            match="t.shmtable was in use when the machine stopped: nobody can tell which of its "
            r"rows had reached the disk; attach with recover=True .* restore\(\) a stored one",
        ):
            ArrayMemoryTable.attach(**disk)
        assert file_of(disk).read_bytes()[:8192] == before
    says = "5 sequences with 50 transitions are kept, 0 that were .* and 0 that had been over"
    with attach_recovered(disk, says) as table:
        assert table.identities().tolist() == [0, 1, 2, 3, 4]
        assert table.check() == []
        table.add_sequence(9, content.sequence(9, 60))
        assert table.check() == []
    with ArrayMemoryTable.attach(**disk) as table:  # it is like any other by now
        assert table.identities().tolist() == [1, 2, 3, 4, 9]
        for identity in table.identities().tolist():
            assert content.wrong_with_sequence(table.sequence(identity), identity) == []


def test_where_one_boot_is_like_another_the_mark_decides(disk, monkeypatch) -> None:
    monkeypatch.setattr(process, "boot_id", lambda: 0)
    make(disk).close()
    ArrayMemoryTable.attach(**disk).close()
    set_word(disk, header.CLEAN, 0)
    with pytest.raises(ArenaUncleanError):
        ArrayMemoryTable.attach(**disk)


def test_recovering_a_clean_table_is_attaching(disk) -> None:
    make(disk).close()
    ArrayMemoryTable.attach(**disk, recover=True).close()  # warnings are errors here


# -- pages of different moments ------------------------------------------------------------------


def set_slot(table: ArrayMemoryTable, identity: int, **fields: int) -> None:
    slots = table._core.arrays.slots
    place = np.flatnonzero(slots[: table._core.arena.words[f.SLOT_HIGH], f.IDENTITY] == identity)
    for field, value in fields.items():
        slots[place, getattr(f, field)] = value


def _older_page(table: ArrayMemoryTable) -> None:
    """The ejected 1 is still live on the disk, and 5 in its place too; 3 is being written."""
    fill(table)
    table.remove(1)
    start = int(table._core.arrays.slots[2, f.START])
    table.add_sequence(5, content.sequence(5, 4))
    assert table._core.arrays.slots[2, f.START] == start
    slots = table._core.arrays.slots
    slots[20] = (f.LIVE, 0, 1, start, 10, 11, 1, 0)  # 1, in another slot
    table._core.arena.words[f.SLOT_HIGH] = 21
    set_slot(table, 3, STATE=f.WRITING)


def test_the_newest_of_those_that_share_rows_is_kept(disk, monkeypatch) -> None:
    leave(disk, at=_older_page)
    restart(monkeypatch)
    says = "4 sequences with 34 transitions are kept, 1 that were being written and 1 that had"
    with attach_recovered(disk, says) as table:
        assert table.identities().tolist() == [0, 2, 4, 5]
        for identity in table.identities().tolist():
            assert content.wrong_with_sequence(table.sequence(identity), identity) == []
        assert table.check() == []


def _counters_behind(table: ArrayMemoryTable) -> None:
    fill(table)
    words, slots = table._core.arena.words, table._core.arrays.slots
    words[f.SLOT_HIGH] = 3  # the page of the header was written before
    words[f.NEXT_ORDER] = 2
    words[f.STEP_TOTAL] = 20
    words[f.NEXT_ATTACHMENT] = 0
    slots[words[f.RESERVED_SLOTS] - 1, f.STATE] = f.LIVE  # not a sequence's


def test_counters_that_are_behind_the_slots(disk, monkeypatch) -> None:
    leave(disk, at=_counters_behind)
    restart(monkeypatch)
    with attach_recovered(disk, "5 sequences with 50 transitions are kept, 0 .* and 1 ") as table:
        assert table.identities().tolist() == [0, 1, 2, 3, 4]
        assert table.check() == []
        assert table.stats().sequences_added == 5


def _more_than_fit(table: ArrayMemoryTable) -> None:
    fill(table)
    table._core.arena.words[f.MAXLEN] = 25


def test_more_than_fit_into_the_table(disk, monkeypatch) -> None:
    leave(disk, at=_more_than_fit)
    restart(monkeypatch)
    with attach_recovered(disk, "2 sequences with 20 transitions are kept, 0 .* and 3 ") as table:
        assert table.identities().tolist() == [3, 4]
        assert table.check() == []


def test_slots_beyond_the_reserved_ones_are_blank_again(disk, monkeypatch) -> None:
    leave(disk, at=_reserve_and_forget)
    restart(monkeypatch)
    with attach_recovered(disk, "0 sequences") as table:
        core = table._core
        region = core.layout.regions["slots"]
        with file_of(disk).open("rb") as file:
            file.seek(region.offset + core.arena.words[f.RESERVED_SLOTS] * 64)
            beyond = file.read(region.offset + region.bytes - file.tell())
        assert not beyond.strip(b"\0")


def _reserve_and_forget(table: ArrayMemoryTable) -> None:
    table._core.arena.words[f.RESERVED_SLOTS] = 2
    table._core.arrays.slots[5, f.STATE] = f.LIVE
    table._core.arrays.slots[60, f.GENERATION] = 7


# -- flush ---------------------------------------------------------------------------------------


def test_flush_brings_the_rows_before_the_index(disk, monkeypatch, make_table) -> None:
    asked: list[list[tuple[int, int]]] = []
    real = durable.sync

    def sync(fd: int, memory: Any, spans: Any, where: str) -> None:
        asked.append(list(spans))
        real(fd, memory, spans, where)

    with make(disk) as table:
        monkeypatch.setattr(durable, "sync", sync)
        table.flush()
        (rows, index), layout = asked[0], table._core.layout
        assert sum(rows) == layout.total_bytes and index == (0, rows[0])
        for name, region in layout.regions.items():
            assert (region.offset >= rows[0]) == (name == "row_slot" or "/" in name)
    asked.clear()
    make_table().flush()  # in memory there is nothing to do
    assert asked == []


def test_a_disk_that_refuses(disk, monkeypatch) -> None:
    from shmtable import ArenaError

    with make(disk) as table:
        monkeypatch.setattr(durable.clib, "function", lambda *_, **__: lambda *_: 5)
        with pytest.raises(ArenaError, match="t.shmtable cannot be brought to the disk: "):
            table.flush()
