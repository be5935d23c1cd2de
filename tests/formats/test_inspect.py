"""Files by themselves: checked, described, converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shmtable import ArrayMemoryTable, FileDamagedError, TableSerializationVersion
from shmtable.formats import convert, describe, verify
from tests.formats.crafting import configured, content_of, members, written
from tests.golden import content as golden
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


def test_description() -> None:
    found = describe(str(golden.FOLDER / "v1.zip"))
    assert found.version is TableSerializationVersion.V1
    assert (found.sequences, found.transitions, found.maxlen) == (20, 158, 1000)
    assert (found.sampler, found.ejector) == ("UniformSampleStrategy", "FifoEjectionStrategy")
    assert [column.name for column in found.columns] == [c.name for c in golden.columns()]
    assert found.lengths == ((2, 3, 2), (4, 7, 7), (8, 15, 11))
    assert found.data_bytes == 178 * 12 + 158 * (4 + 8 + 8) + 20 * 4
    assert found.file_bytes == (golden.FOLDER / "v1.zip").stat().st_size


def test_verifying_reads_every_row(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 9))
    table.store(tmp_path / "t")
    path = tmp_path / "t.zip"
    seen: list[tuple[int, int]] = []
    assert verify(str(path), progress=lambda *done: seen.append(done)).sequences == 1
    assert seen[-1] == (10 * 12 + 9 * 12, 10 * 12 + 9 * 12)
    data = bytearray(path.read_bytes())
    rows = table.sequence(1)["obs"].numpy().tobytes()
    data[data.index(rows)] ^= 1
    path.write_bytes(data)
    assert describe(str(path)).sequences == 1
    with pytest.raises(FileDamagedError, match="obs.npy.*checksum"):
        verify(str(path))


def test_legacy_becomes_v1(make_table: MakeTable, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        convert(str(golden.FOLDER / "legacy.zip"), str(tmp_path / "t.zip"))
    table, other = (make_table(columns=golden.columns()) for _ in range(2))
    table.restore(tmp_path / "t")
    with pytest.warns(DeprecationWarning):
        other.restore(golden.FOLDER / "legacy")
    assert content_of(table) == content_of(other)
    assert describe(str(tmp_path / "t.zip")).version is TableSerializationVersion.V1


def test_a_file_with_its_sequences_in_another_order(make_table: MakeTable, tmp_path: Path) -> None:
    table, other = make_table(), make_table()
    for identity in range(5):
        table.add_sequence(identity, small_sequence(identity, 3 + identity))
    table.store(tmp_path / "t")
    written(tmp_path / "t.zip", configured(members(tmp_path / "t.zip"), ids=[3, 0, 4, 1, 2]))
    convert(str(tmp_path / "t.zip"), str(tmp_path / "t.zip"))
    other.restore(tmp_path / "t")
    assert other.identities().tolist() == [3, 0, 4, 1, 2]
    assert {k: content_of(other)[k] for k in range(5)} == content_of(table)
