"""Looking at a file: whoever looks is no user of it, and takes no lock away by letting go."""

from __future__ import annotations

import os

import pytest

from shmtable import ArrayMemoryTable
from shmtable.errors import ArenaDamagedError, ArenaNotFoundError, ArenaPermissionError
from shmtable.shm import files, leftovers
from shmtable.shm.look import Look, is_used, users


@pytest.fixture
def path(make_table, tmp_path) -> str:
    """The file of a table on disk that nobody has open."""
    make_table(name="seen", directory=str(tmp_path)).close()
    return str(tmp_path / "seen.shmtable")


def test_who_looks_is_no_user(path) -> None:
    with Look.open(path) as look:
        assert look.header.lock_kind and look.is_linked() and look.taken_bytes() > 0
        assert is_used(path) is False
        assert leftovers.remove_unused(path)
        assert not look.is_linked() and len(look.read(0, 4096)) == 4096
    with pytest.raises(ArenaNotFoundError):
        Look.open(path)


def test_words_are_a_copy(path) -> None:
    with Look.open(path) as look:
        look.words()[100] = 7
        assert look.words()[100] != 7


def test_a_look_begun_before_an_attach_ends_after_it(path) -> None:
    """Closing the number would drop the record locks that the portable mutex is made of."""
    look = Look.open(path)
    number = look._fd
    with ArrayMemoryTable.attach("seen", directory=os.path.dirname(path)) as table:
        look.close()
        look.close()
        assert files.key_of(os.fstat(number)) == look.key
        assert is_used(path) is True and (os.getpid(), number) in users()[look.key]
        assert table.check() == []
    with pytest.raises(OSError):
        os.fstat(number)


def test_a_look_at_a_table_of_ones_own_shares_its_descriptor(make_table) -> None:
    table = make_table()
    look = table._core.arena.look()
    table.close()
    assert look.words()[0] == look.header.words[0]
    look.close()
    with pytest.raises(OSError):
        os.fstat(look._fd)


def test_what_is_cut_short_or_not_ours_to_read_is_said(path) -> None:
    with Look.open(path) as look:
        os.truncate(path, 8192)
        with pytest.raises(ArenaDamagedError, match="has been cut short"):
            look.read(4096, 8192)
    os.chmod(path, 0o644)
    with pytest.raises(ArenaPermissionError, match="0644"):
        Look.open(path)
