"""Tables that cannot be made or attached, each refused by the text of its error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from shmtable import (
    ArenaInUseError,
    ArenaNotFoundError,
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    NextElementMapper,
    SequenceError,
    ShmTableError,
    SpecError,
    TagColumn,
    UniformSampleStrategy,
    VirtualColumn,
)
from tests.tables import small_columns

ACTIONS = Column("actions", (), "int8")
INTEGER = "give an integer from 1 to 2**40"
NAME = (
    "must be 1 to 100 letters, digits, '.', '_' or '-' and begin with a letter or digit; choose "
    "such a name"
)

BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"maxlen": 0}, f"maxlen is 0; {INTEGER}"),
    ({"maxlen": -5}, f"maxlen is -5; {INTEGER}"),
    ({"maxlen": 1.5}, f"maxlen is 1.5; {INTEGER}"),
    ({"maxlen": "many"}, f"maxlen is 'many'; {INTEGER}"),
    ({"maxlen": True}, f"maxlen is True; {INTEGER}"),
    ({"maxlen": 2**41}, f"maxlen is {2**41}; {INTEGER}"),
    ({"max_sequences": 0}, f"max_sequences is 0; {INTEGER}"),
    (
        {"max_sequences": 101},
        "max_sequences is 101, more than maxlen, 100; every sequence has at least one "
        "transition, so give at most maxlen",
    ),
    ({"on_duplicate": "keep"}, "on_duplicate is 'keep'; give one of ('error', 'replace')"),
    ({"layout": "time"}, "layout is 'time'; give one of ('flat', 'batch_time')"),
    ({"pad": "ones"}, "pad is 'ones'; give one of (None, 'zero', 'edge')"),
    ({"seed": -1}, "seed is -1; give a non-negative integer, or None"),
    ({"seed": 1.5}, "seed is 1.5; give a non-negative integer, or None"),
    (
        {"adaptors": [5]},
        "adaptor 5 cannot be called; give functions or objects of the form "
        "adaptor(result, count, sequence_length) -> result",
    ),
    (
        {"adaptors": 5},
        "adaptor 5 cannot be called; give functions or objects of the form "
        "adaptor(result, count, sequence_length) -> result",
    ),
    ({"columns": 5}, "columns is 5; give a list of Column, TagColumn, VirtualColumn"),
    ({"lock": "spin"}, "lock='spin' must be 'robust' or 'portable'"),
    ({"name": "a/b"}, f"table name 'a/b' {NAME}"),
    ({"name": ""}, f"table name '' {NAME}"),
    ({"name": ".."}, f"table name '..' {NAME}"),
    (
        {"directory": "/tmp"},
        "directory='/tmp' needs a name for the table's file; pass name= too",
    ),
    (
        {"length_key": "steps"},
        "length_key is 'steps', no stored column; give one: obs, actions, rewards",
    ),
    (
        {"length_key": "dones"},
        "length_key is 'dones', no stored column; give one: obs, actions, rewards",
    ),
    (
        {"sampler": None},
        "sampler is None; give an instance of a SampleStrategy, for example "
        "sampler=UniformSampleStrategy()",
    ),
    (
        {"ejector": FifoEjectionStrategy},
        "ejector is <class 'shmtable.strategies.fifo.FifoEjectionStrategy'>; give an instance of "
        "a EjectionStrategy, for example ejector=FifoEjectionStrategy()",
    ),
]

BAD_COLUMNS: list[tuple[list[Any], str]] = [
    ([], "length_key is 'actions', no stored column; give one: there is none"),
    (
        ["obs"],
        "'obs' is no column; give Column, TagColumn or VirtualColumn objects, one by one, or a "
        "list of them as columns=",
    ),
    ([ACTIONS, ACTIONS], "column 'actions' is declared twice; give each column its own name"),
    (
        [ACTIONS, VirtualColumn("next", (), "int8", "obs", NextElementMapper)],
        "column 'next': its target 'obs' is not a stored column; give one of actions",
    ),
    (
        [
            ACTIONS,
            TagColumn("kind", (), "int8"),
            VirtualColumn("next", (), "int8", "kind", NextElementMapper),
        ],
        "column 'next': its target 'kind' is not a stored column; give one of actions",
    ),
    (
        [ACTIONS, VirtualColumn("next", (2,), "int8", "actions", NextElementMapper)],
        "column 'next': shape (2,) and dtype int8 differ from those of its target 'actions', () "
        "and int8; declare both alike",
    ),
]


def refused(kind: type[ShmTableError] = SpecError, **options: Any) -> str:
    defaults: dict[str, Any] = {
        "columns": small_columns(),
        "maxlen": 100,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
    }
    with pytest.raises(kind) as caught:
        ArrayMemoryTable(**{**defaults, **options})
    return str(caught.value)


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=str)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    assert refused(**options) == message


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS, ids=[m for _, m in BAD_COLUMNS])
def test_columns_that_cannot_be(columns: list[Any], message: str) -> None:
    assert refused(columns=columns) == message


def test_a_sampler_is_no_ejector() -> None:
    message = refused(sampler=FifoEjectionStrategy(), ejector=UniformSampleStrategy())
    assert re.fullmatch(
        "sampler is <.*FifoEjectionStrategy object at .*>; give an instance of a SampleStrategy, "
        r"for example sampler=UniformSampleStrategy\(\)",
        message,
    )


def test_columns_given_twice() -> None:
    with pytest.raises(SpecError) as caught:
        ArrayMemoryTable(
            ACTIONS,
            columns=[ACTIONS],
            maxlen=5,
            sampler=UniformSampleStrategy(),
            ejector=FifoEjectionStrategy(),
        )
    assert str(caught.value) == (
        "columns are given twice; pass them one by one or as columns=[...]"
    )


def test_a_column_named_like_the_mask_is_refused_only_where_there_is_one(
    make_table: Any,
) -> None:
    columns = [ACTIONS, Column("mask", (), "bool")]
    assert refused(columns=columns, pad="zero") == (
        "column 'mask': samples of this table carry something else under this name; choose another"
    )
    make_table(columns=columns)


def test_a_name_that_is_in_use(make_table: Any, unique_name: Any) -> None:
    name = unique_name()
    table = make_table(name=name)
    table.add_sequence(1, {"obs": [[1, 2, 3]] * 2, "actions": [1], "rewards": [1]})
    assert name in refused(ArenaInUseError, name=name)
    assert table.size() == 1
    table.close()
    make_table(name=name)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert refused(ArenaNotFoundError, name="x", directory=str(folder)) == (
        f"{folder} is not an existing folder; make it first"
    )
    assert not folder.exists()


def test_attaching_to_nothing(unique_name: Any, tmp_path: Path) -> None:
    name = unique_name()
    with pytest.raises(ArenaNotFoundError, match=f"{name} does not exist; create the table first"):
        ArrayMemoryTable.attach(name)
    with pytest.raises(ArenaNotFoundError, match=f"{name}.* does not exist; create the table"):
        ArrayMemoryTable.attach(name, directory=str(tmp_path))
    with pytest.raises(SpecError, match="^table name '../x' must be 1 to 100 letters"):
        ArrayMemoryTable.attach("../x")
    assert list(tmp_path.glob("*.shmtable")) == []


def test_a_device_torch_does_not_know(make_table: Any, unique_name: Any) -> None:
    with pytest.raises(SpecError, match=r"^device is 'nope', which torch refuses \(.*; give 'cpu'"):
        make_table(device="nope")
    table = make_table(name=unique_name())
    with pytest.raises(SpecError, match="^device is 'nope'"):
        ArrayMemoryTable.attach(table._core.arena.name, device="nope")


def test_sequences_that_are_no_pairs(make_table: Any) -> None:
    table = make_table()
    with pytest.raises(SequenceError) as caught:
        table.add_sequences(5)
    assert str(caught.value) == "sequences is a int; give pairs of identity and sequence"
    with pytest.raises(SequenceError) as caught:
        table.add_sequences([(1,)])
    assert str(caught.value) == (
        "entry 0 of the sequences is (1,); give pairs of identity and sequence"
    )


def test_too_many_columns_for_one_table(make_table: Any) -> None:
    columns = [Column(f"c{number}", (), "int8") for number in range(127)]
    with pytest.raises(SpecError, match="^127 columns are stored, a table has at most 126; "):
        make_table(columns=columns, length_key="c0")
