"""Storing and restoring V1: what comes back, and what is said when it cannot."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    FifoSampleStrategy,
    FileDamagedError,
    FileMismatchError,
    FileVersionError,
    TableFileError,
    TableSerializationVersion,
    TagColumn,
    UniformEjectionStrategy,
    UniformSampleStrategy,
)
from tests.formats.crafting import configured, content_of, members, npy, written
from tests.tables import small_columns, small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


def filled(make_table: MakeTable, lengths: Any = range(3, 23), **options: Any) -> ArrayMemoryTable:
    table = make_table(**options)
    for identity, length in enumerate(lengths):
        table.add_sequence(identity, small_sequence(identity, length))
    return table


@pytest.mark.parametrize("lengths", [[], [1], [1] * 300, range(3, 23), [999]], ids=str)
def test_round_trip(make_table: MakeTable, tmp_path: Path, lengths: Any) -> None:
    table, other = filled(make_table, lengths), filled(make_table, [7])
    table.store(str(tmp_path / "t"))
    other.restore(str(tmp_path / "t"))
    assert content_of(other) == content_of(table)
    assert other.identities().tolist() == table.identities().tolist()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float16", "bfloat16", "complex64"])
def test_every_dtype(make_table: MakeTable, tmp_path: Path, dtype: str) -> None:
    columns = [Column("actions", (2,), dtype), TagColumn("tag", (), dtype)]
    table, other = (make_table(columns=columns) for _ in range(2))
    value = np.array([[1, 0], [1, 1], [0, 1]])
    table.add_sequence(-5, {"actions": value, "tag": 1})
    table.store(tmp_path / "t")
    other.restore(tmp_path / "t")
    found, expected = other.sequence(-5), table.sequence(-5)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert found[name].tolist() == expected[name].tolist()


def test_a_last_observation_is_kept(make_table: MakeTable, tmp_path: Path) -> None:
    columns = [Column("obs", (), "float32"), Column("actions", (), "int64")]
    table, other = (make_table(columns=columns) for _ in range(2))
    table.add_sequence(1, {"obs": [1.0, 2.0, 3.0], "actions": [1, 2]})
    table.add_sequence(2, {"obs": [4.0, 5.0], "actions": [3, 4]})
    table.store(tmp_path / "t")
    other.restore(tmp_path / "t")
    assert content_of(other) == content_of(table)
    assert len(other.sequence(1)["obs"]) == 3


def test_others_read_the_file(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table)
    previous = os.umask(0o077)
    try:
        table.store(tmp_path / "t")
    finally:
        os.umask(previous)
    path = tmp_path / "t.zip"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("version") == b"1"
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["obs"].shape == (sum(range(4, 24)), 3)


def test_sequences_in_another_order_and_compressed(make_table: MakeTable, tmp_path: Path) -> None:
    table, other = filled(make_table), make_table()
    table.store(tmp_path / "t")
    content = members(tmp_path / "t.zip")
    order = np.random.default_rng(1).permutation(20).tolist()
    content = {name: data for name, data in content.items() if not name.startswith("shmtable")}
    changed = configured(content, ids=order)
    written(tmp_path / "u.zip", changed, zipfile.ZIP_DEFLATED)
    other.restore(tmp_path / "u")
    assert other.identities().tolist() == order
    assert content_of(other) == {key: content_of(table)[key] for key in order}


def test_counts_and_the_random_stream_go_on(make_table: MakeTable, tmp_path: Path) -> None:
    table, other = filled(make_table, seed=1), make_table(seed=2)
    table.sample(50, 2)
    table.store(tmp_path / "t")
    other.restore(tmp_path / "t")
    other.store(tmp_path / "u")
    one, two = members(tmp_path / "t.zip"), members(tmp_path / "u.zip")
    assert one["shmtable.json"] == two["shmtable.json"]
    # Slots may differ; the stream is the same.
    one_draw, two_draw = table._core._random, other._core._random
    assert one_draw is not None and two_draw is not None
    assert one_draw.random(5).tolist() == two_draw.random(5).tolist()


class TestAnotherTable:
    def test_larger(self, make_table: MakeTable, tmp_path: Path) -> None:
        table, other = filled(make_table), make_table(maxlen=5000)
        table.store(tmp_path / "t")
        other.restore(tmp_path / "t")
        assert content_of(other) == content_of(table)
        assert other.maxlen == 5000

    def test_smaller_takes_the_newest(self, make_table: MakeTable, tmp_path: Path) -> None:
        table, other = filled(make_table), make_table(maxlen=60)
        table.store(tmp_path / "t")
        with pytest.warns(UserWarning, match=r"maxlen 60.*newest 2 with 43: 18 sequences") as said:
            other.restore(tmp_path / "t")
        assert said[0].filename == __file__
        assert other.identities().tolist() == [18, 19]

    def test_fewer_sequences(self, make_table: MakeTable, tmp_path: Path) -> None:
        table, other = filled(make_table), make_table(max_sequences=3)
        table.store(tmp_path / "t")
        with pytest.warns(UserWarning, match="max_sequences 3"):
            other.restore(tmp_path / "t")
        assert other.identities().tolist() == [17, 18, 19]

    def test_other_strategies(self, make_table: MakeTable, tmp_path: Path) -> None:
        table = filled(make_table, sampler=FifoSampleStrategy(), ejector=UniformEjectionStrategy())
        table.store(tmp_path / "t")
        other = make_table(sampler=UniformSampleStrategy(), ejector=FifoEjectionStrategy())
        with pytest.warns(UserWarning) as said:
            other.restore(tmp_path / "t")
        texts = [str(warning.message) for warning in said]
        assert "FifoSampleStrategy, this table has UniformSampleStrategy" in texts[0]
        assert "UniformEjectionStrategy, this table has FifoEjectionStrategy" in texts[1]
        assert content_of(other) == content_of(table)

    def test_missing_and_more_columns(self, make_table: MakeTable, tmp_path: Path) -> None:
        table = filled(make_table)
        table.store(tmp_path / "t")
        columns = [*small_columns()[:3], Column("extra", (2,), "int16"), TagColumn("tag", (), "i4")]
        other = make_table(columns=columns)
        ones = {"obs": np.ones((6, 3), "f4"), "actions": np.ones(5, "i8")}
        other.add_sequence(99, {**ones, "extra": np.ones((5, 2), "i2"), "tag": 7})
        before = content_of(other)
        with pytest.raises(FileMismatchError, match="lacks the columns extra, tag"):
            other.restore(tmp_path / "t")
        assert content_of(other) == before
        with pytest.warns(UserWarning) as said:
            other.restore(tmp_path / "t", strict=False)
        assert "extra, tag, which become zeros" in str(said[0].message)
        assert "rewards, which are left out" in str(said[1].message)
        found = other.sequence(5)
        assert found["obs"].tolist() == table.sequence(5)["obs"].tolist()
        assert not found["extra"].any() and found["extra"].shape == (8, 2) and found["tag"] == 0

    @pytest.mark.parametrize(
        ("column", "text"),
        [
            (Column("rewards", (), "float64"), "dtype float32 and shape .., here float64"),
            (Column("rewards", (1,), "float32"), r"here float32 and \(1,\)"),
            (TagColumn("rewards", (), "float32"), "is a Column, here it is a TagColumn"),
        ],
    )
    def test_another_dtype_shape_or_kind(
        self, make_table: MakeTable, tmp_path: Path, column: Column, text: str
    ) -> None:
        filled(make_table).store(tmp_path / "t")
        columns = [column if c.name == "rewards" else c for c in small_columns()]
        other = make_table(columns=columns)
        with pytest.raises(FileMismatchError, match=f"column 'rewards'.*{text}"):
            other.restore(tmp_path / "t", strict=False)

    def test_too_few_rows_for_what_looks_ahead(self, make_table: MakeTable, tmp_path: Path) -> None:
        columns = [c for c in small_columns() if c.name != "next_obs"]
        table = make_table(columns=columns)
        sequence = small_sequence(1, 5)
        table.add_sequence(1, {**sequence, "obs": sequence["obs"][:5]})
        table.store(tmp_path / "t")
        with pytest.raises(FileMismatchError, match="'obs' has 5 rows for sequence 1.*needs 6"):
            make_table().restore(tmp_path / "t")


class TestVersions:
    def test_newer_is_not_damaged(self, make_table: MakeTable, tmp_path: Path) -> None:
        table = filled(make_table)
        table.store(tmp_path / "t")
        content = members(tmp_path / "t.zip")
        written(tmp_path / "t.zip", {**content, "version": b"7"})
        with pytest.raises(FileVersionError, match="format 7; this shmtable reads 0 to 1: upgrade"):
            table.restore(tmp_path / "t")

    def test_no_number_is_damaged(self, make_table: MakeTable, tmp_path: Path) -> None:
        table = filled(make_table)
        table.store(tmp_path / "t")
        content = members(tmp_path / "t.zip")
        written(tmp_path / "t.zip", {**content, "version": b"one"})
        with pytest.raises(FileDamagedError, match="'version'.*b'one'"):
            table.restore(tmp_path / "t")

    def test_the_caller_knows_better(self, make_table: MakeTable, tmp_path: Path) -> None:
        table = filled(make_table)
        table.store(tmp_path / "t")
        content = members(tmp_path / "t.zip")
        del content["version"]
        written(tmp_path / "t.zip", content)
        with pytest.warns(DeprecationWarning):
            with pytest.raises(FileDamagedError, match="no member 'data.pickle'"):
                table.restore(tmp_path / "t")
        assert table.restore(tmp_path / "t", TableSerializationVersion.V1)


@pytest.mark.parametrize("name", ["../x", "a/../b", "a\\b", "obs.ranges", "shmtable.sequences"])
def test_column_names_that_a_file_cannot_have(
    make_table: MakeTable, tmp_path: Path, name: str
) -> None:
    columns = [Column("obs", (), "f4"), Column("actions", (), "i8"), Column(name, (), "i8")]
    table = make_table(columns=columns)
    with pytest.raises(TableFileError, match="rename the column"):
        table.store(tmp_path / "t")
    assert not [entry for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")]


RANGES = np.array([[0, 0, 3], [1, 3, 4]])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ids": [0]}, "ranges of shape"),
        ({"ids": [0, 0]}, "an identity twice"),
        ({"ids": [0, 2]}, "other identities"),
        ({"ids": [0, 2**70]}, "64 bits"),
        ({"ids": "01"}, "ids is"),
        ({"maxlen": 0}, "maxlen is 0"),
        ({"maxlen": None}, "maxlen is None"),
        ({"length_key": "dones"}, "no stored column"),
        ({"part_keys": ["obs"]}, "part_keys"),
        ({"columns": [["obs", "Column"]]}, "is none"),
        ({"columns": [["obs", "Column", {"shape": [-1], "dtype": "f4"}]]}, "is none"),
        ({"columns": [["obs", "Column", {"shape": [3], "dtype": "O"}]]}, "is none"),
        ({"sampler_type": 3}, "sampler_type is 3"),
    ],
)
def test_configurations_that_contradict(
    make_table: MakeTable, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    table = filled(make_table, [3, 4])
    before = content_of(table)
    table.store(tmp_path / "t")
    written(tmp_path / "t.zip", configured(members(tmp_path / "t.zip"), **change))
    with pytest.raises(FileDamagedError, match=text):
        table.restore(tmp_path / "t")
    assert content_of(table) == before


@pytest.mark.parametrize(
    ("member", "data", "text"),
    [
        ("actions.ranges.npy", npy([[0, 0, 3], [1, 2, 4]]), "share rows"),
        ("actions.ranges.npy", npy([[0, 0, 3], [1, 4, 4]]), "beyond the 7 rows"),
        ("actions.ranges.npy", npy([[0, -1, 3], [1, 3, 4]]), "beyond the 7 rows"),
        ("actions.ranges.npy", npy([[0, 0, 3], [1, 3, 3]]), "only 6 belong"),
        ("actions.ranges.npy", npy([[0, 0, 3], [1, 3, 2**62]]), "more than the 7"),
        ("actions.ranges.npy", npy([[0, 0, 0], [1, 0, 7]]), "no row"),
        ("actions.ranges.npy", npy([[0, 0, 3], [0, 3, 4]]), "other identities"),
        ("actions.ranges.npy", npy(np.zeros((2, 3))), "must hold integers"),
        ("actions.npy", npy(np.zeros(7, "i4")), "holds int32"),
        ("actions.npy", npy(np.zeros(8, "i8")), "only 7 belong"),
        ("actions.npy", npy(np.zeros(7, "i8")) + b"x", "are claimed"),
        ("actions.npy", npy(np.zeros(7, "i8"))[:-1], "are claimed"),
        ("actions.npy", b"", "not begin like an array"),
        ("obs.npy", npy(np.zeros((9, 3), "f4", order="F")), "column by column"),
        ("shmtable.json", b"[]", "no JSON object"),
        ("shmtable.json", b'{"format": 1, "arrays": [], "random": {"state": 1}}', "random state"),
        ("configuration.json", b"[" * 100_000, "no JSON"),
    ],
)
def test_members_that_contradict(
    make_table: MakeTable, tmp_path: Path, member: str, data: bytes, text: str
) -> None:
    table = filled(make_table, [3, 4])
    before = content_of(table)
    table.store(tmp_path / "t")
    written(tmp_path / "t.zip", {**members(tmp_path / "t.zip"), member: data})
    with pytest.raises(FileDamagedError, match=text):
        table.restore(tmp_path / "t")
    assert content_of(table) == before


def test_compressed_rows_out_of_proportion(make_table: MakeTable, tmp_path: Path) -> None:
    columns = [Column("actions", (), "int64")]
    large = make_table(columns=columns, maxlen=4_000_000, max_sequences=10)
    large.add_sequence(1, {"actions": np.zeros(3_000_000, np.int64)})
    large.store(tmp_path / "t")
    written(tmp_path / "t.zip", members(tmp_path / "t.zip"), zipfile.ZIP_DEFLATED)
    small = make_table(columns=columns, maxlen=100)
    with pytest.raises(FileDamagedError, match="claims 24000128 bytes unpacked, at most 1682"):
        small.restore(tmp_path / "t")
    large.clear()
    large.restore(tmp_path / "t")
    assert large.size() == 3_000_000


def test_objects_are_never_read(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table, [3, 4])
    table.store(tmp_path / "t")
    data = npy(np.array([None] * 7, object), allow_pickle=True)
    written(tmp_path / "t.zip", {**members(tmp_path / "t.zip"), "actions.npy": data})
    with pytest.raises(TableFileError, match="Python objects, which are never read"):
        table.restore(tmp_path / "t")


def test_extras_of_a_later_version_are_left_aside(make_table: MakeTable, tmp_path: Path) -> None:
    table = filled(make_table)
    table.store(tmp_path / "t")
    extras = b'{"format": 2, "something": "else"}'
    written(tmp_path / "t.zip", {**members(tmp_path / "t.zip"), "shmtable.json": extras})
    assert table.restore(tmp_path / "t")
