"""Nothing that a pickle names is ever called."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    Column,
    FileDamagedError,
    FileUnsafeError,
    NextNElementWrapper,
    TableFileError,
    TableSerializationVersion,
    VirtualColumn,
)
from shmtable.formats.unpickle import unpickled
from tests.formats.crafting import content_of, members, written
from tests.golden import content as golden
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
LEGACY = TableSerializationVersion.Legacy
pytestmark = pytest.mark.filterwarnings("ignore:.*Legacy format:DeprecationWarning")


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("true",)),
        (eval, ("1",)),
        (print, ("x",)),
        (getattr, (1, "real")),
        (bytearray, (1 << 40,)),
        (np.load, ("x",)),
        (Path, ("x",)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_functions_are_refused_by_name(function: Any, args: Any) -> None:
    data = pickle.dumps({"sampler": Calls(function, *args)})
    with pytest.raises(FileUnsafeError, match=f"names [a-z._]+{function.__name__}.*not.* executed"):
        unpickled(data, "a file")


def test_a_call_really_does_not_happen(tmp_path: Path, make_table: MakeTable) -> None:
    mark = tmp_path / "executed"
    evil = pickle.dumps(Calls(os.mkdir, str(mark)))
    pickle.loads(evil)
    mark.rmdir()  # so the pickle would have done it
    whole = members(golden.FOLDER / "legacy.zip")
    for member in ("data.pickle", "features.npy"):
        head = whole[member][:128] if member.endswith(".npy") else b""
        written(tmp_path / "e.zip", {**whole, member: head + evil})
        table = make_table(columns=golden.columns())
        with pytest.raises(FileUnsafeError, match=f"member '{member}': names posix.mkdir"):
            table.restore(tmp_path / "e")
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04N",
        pickle.dumps({1: 2})[:-3],
        b"\x80\x04r\xff\xff\xff\xff.",  # a memo index of 2**32: the C unpickler allocates for it
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63
        b"cos\nsystem\n",
        b"Pid\n.",
        b"\x82\x01.",
        pickle.dumps({(1, 2): 3}),
        pickle.dumps({frozenset([1])}),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_what_no_table_needs(data: bytes) -> None:
    with pytest.raises((FileDamagedError, FileUnsafeError)):
        unpickled(data, "a file")


def test_a_key_that_takes_for_ever_to_hash() -> None:
    nested: Any = ()
    for _ in range(200):
        nested = (nested, nested)
    data = pickle.dumps(nested)[:-1]  # hashing it would take 2**200 steps
    with pytest.raises(FileDamagedError, match="key"):
        unpickled(b"\x80\x04}" + data[2:] + b"Ns.", "a file")


def test_what_it_cannot_hold_is_said(make_table: MakeTable, tmp_path: Path) -> None:
    wide = make_table(columns=[Column("actions", (), "bfloat16")])
    with pytest.raises(TableFileError, match="'actions' is bfloat16.*store the table as V1"):
        wide.store(tmp_path / "t", LEGACY)
    ahead = VirtualColumn("n", (), "i8", "actions", lambda: NextNElementWrapper(2))
    table = make_table(columns=[Column("actions", (), "i8"), ahead])
    with pytest.raises(TableFileError, match="'n': its mapper.*store the table as V1"):
        table.store(tmp_path / "t", LEGACY)
    assert not (tmp_path / "t.zip").exists()


def test_progress_is_told_in_bytes(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table()
    table.add_sequence(0, small_sequence(0, 9))
    seen: list[tuple[int, int]] = []
    with pytest.warns(DeprecationWarning):
        table.store(
            tmp_path / "t",
            TableSerializationVersion.Legacy,
            progress=lambda *done: seen.append(done),
        )
    size = 10 * 12 + 9 * 12
    assert [total for _, total in seen] == [size] * 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (size, size)


def test_negative_identities_are_left_out_and_said(make_table: MakeTable, tmp_path: Path) -> None:
    table, other = make_table(), make_table()
    for identity in (3, -7, 4):
        table.add_sequence(identity, small_sequence(identity, 5))
    table.store(tmp_path / "t", LEGACY)
    with pytest.warns(UserWarning, match="1 of 3 sequences have negative identities"):
        other.restore(tmp_path / "t")
    assert other.identities().tolist() == [-4, -5]
    assert content_of(other)[-4] == content_of(table)[3]


def test_the_real_unpickler_reads_what_is_written(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table(columns=golden.columns())
    table.restore(golden.FOLDER / "v1")
    table.store(tmp_path / "t", LEGACY)

    class Trusting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("emote.memory."):
                return type(name, (dict,) if "Storage" in name else (), {"module": module})
            return super().find_class(module, name)

    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        with archive.open("data.pickle") as file:
            parts = Trusting(file).load()
        with archive.open("features.npy") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            np.lib.format.read_array_header_1_0(file)
            features = Trusting(file).load().item(0)
    assert list(parts) == [
        *("ejector", "sampler", "length_key", "maxlen", "columns", "lengths", "filled"),
    ]
    assert parts["lengths"] == {i: len(table.sequence(i)["actions"]) for i in table.identities()}
    assert list(parts["ejector"]._identities) == table.identities().tolist()
    assert parts["columns"]["features"].dtype is np.float32
    for identity, rows in features.items():
        np.testing.assert_array_equal(rows, table.sequence(identity)["features"].numpy())
