"""The rules between columns, and the JSON form, hostile ones included."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmtable.columns import Column, Schema, TagColumn, VirtualColumn
from shmtable.errors import ShmTableError, SpecError
from shmtable.mappers import MAPPERS, NextElementMapper, NextNElementWrapper, SyntheticDones

OBS = Column("obs", (3,), "float32")
ACTIONS = Column("actions", (), "int64")
COLUMNS = [
    OBS,
    VirtualColumn("next_obs", (3,), "float32", "obs", NextElementMapper),
    VirtualColumn("far_obs", (3,), "float32", "obs", NextNElementWrapper.with_n(4)),
    ACTIONS,
    VirtualColumn("masks", (1,), "bfloat16", "actions", SyntheticDones.as_mask),
    TagColumn("terminal", (2,), "float16"),
]
OBJECT: dict[str, Any] = json.loads(json.dumps(Schema.build(COLUMNS, "actions").to_json()))


def test_parts_and_sizes() -> None:
    schema = Schema.build(COLUMNS, "actions")
    assert schema.columns == tuple(COLUMNS)
    assert [column.name for column in schema.stored] == ["obs", "actions"]
    assert [column.name for column in schema.tags] == ["terminal"]
    assert [column.name for column in schema.virtual] == ["next_obs", "far_obs", "masks"]
    assert schema.look_ahead == {"obs": 4, "actions": 0}
    assert schema.max_look_ahead == 4
    assert schema.row_bytes == 12 + 8
    assert schema.slot_bytes == 4


@pytest.mark.parametrize(
    ("columns", "length_key", "message"),
    [
        (
            [],
            "actions",
            "length_key is 'actions', no stored column; give one: there is none",
        ),
        (
            [OBS],
            "actions",
            "length_key is 'actions', no stored column; give one: obs",
        ),
        (
            [OBS, TagColumn("actions", (), int)],
            "actions",
            "length_key is 'actions', no stored column; give one: obs",
        ),
        ([OBS], None, "length_key is None, no stored column; give one: obs"),
        (
            [OBS, ACTIONS, TagColumn("obs", (), int)],
            "actions",
            "column 'obs' is declared twice; give each column its own name",
        ),
        (
            [ACTIONS, VirtualColumn("next", (), int, "obs", NextElementMapper)],
            "actions",
            "column 'next': its target 'obs' is not a stored column; give one of actions",
        ),
        (
            [
                ACTIONS,
                VirtualColumn("dones", (), bool, "actions", SyntheticDones),
                VirtualColumn("next", (), bool, "dones", NextElementMapper),
            ],
            "actions",
            "column 'next': its target 'dones' is not a stored column; give one of actions",
        ),
        (
            ["obs"],
            "obs",
            "'obs' is no column; give Column, TagColumn or VirtualColumn objects, one by one, or a "
            "list of them as columns=",
        ),
        (
            [ACTIONS, Column("mask", (), bool)],
            "actions",
            "column 'mask': samples of this table carry something else under this name; "
            "choose another",
        ),
    ],
)
def test_refused(columns: list[Any], length_key: Any, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        Schema.build(columns, length_key, reserved=["mask"])
    assert str(raised.value) == message


def test_json_round_trip() -> None:
    schema = Schema.build(COLUMNS, "actions")
    assert Schema.from_json(OBJECT, MAPPERS) == schema
    assert Schema.from_json(OBJECT, MAPPERS).to_json() == schema.to_json()


def test_a_mapper_this_program_does_not_know() -> None:
    with pytest.raises(SpecError) as raised:
        Schema.from_json(OBJECT, {"SyntheticDones": SyntheticDones})
    assert str(raised.value) == (
        "column 'next_obs': mapper 'NextElementMapper' is not known to this program, which knows "
        "SyntheticDones; pass its class too"
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ([], None, "schema has NoneType; it is an object with ['columns', 'length_key']"),
        ([], {"a": 1}, "schema has ['a']; it is an object with ['columns', 'length_key']"),
        (["length_key"], 3, "schema: length_key is 3; it is a str"),
        (["columns"], {}, "schema: columns is {}; it is a list"),
        (["columns", 0], 7, "column entry has kind None; known are Column, TagColumn and Virtual"),
        (["columns", 0, "kind"], "X", "column entry has kind 'X'; known are Column, TagColumn and"),
        (["columns", 0, "kind"], [], "column entry has kind []; known are Column, TagColumn and"),
        (["columns", 0, "extra"], 1, "Column entry has ['dtype', 'extra', 'first_only', 'kind'"),
        (["columns", 0, "first_only"], 1, "Column entry: first_only is 1; it is a bool"),
        (["columns", 0, "shape"], [3.0], "column 'obs': shape is [3.0]; it is a list of integers"),
        (["columns", 0, "shape"], [True], "column 'obs': shape is [True]; it is a list of"),
        (["columns", 0, "shape"], [10**30], "column 'obs': one row of shape (1000"),
        (["columns", 0, "dtype"], "real", "column 'obs': dtype 'real' cannot be stored"),
        (["columns", 1, "mapper"], "os.system", "column 'next_obs': mapper 'os.system' is not"),
        (["columns", 1, "config"], {"n": 2}, "mapper NextElementMapper does not take the setting"),
        (["columns", 1, "config"], {"only_last": 2}, "only_last is 2; give True or False"),
        (["columns", 2, "config"], {"n": -1}, "n is -1; give an integer of at least 1"),
        (["columns", 4, "config"], {"mask": "no"}, "mask is 'no'; give True or False"),
    ],
)
def test_hostile_json(path: list[Any], value: Any, message: str) -> None:
    obj: Any = [copy.deepcopy(OBJECT)]
    place = obj
    for key in [0, *path[:-1]]:
        place = place[key] if path else place
    place[path[-1] if path else 0] = value
    with pytest.raises(SpecError) as raised:
        Schema.from_json(obj[0], MAPPERS)
    assert str(raised.value).startswith(message)


def _paths(node: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    found = [here] if here else []
    for key, value in inner:
        found += _paths(value, (*here, key)) if isinstance(value, (dict, list)) else [(*here, key)]
    return found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(path=st.sampled_from(_paths(OBJECT)), value=JSON)
def test_any_change_is_accepted_or_refused_in_our_words(path: tuple[Any, ...], value: Any) -> None:
    obj = copy.deepcopy(OBJECT)
    place = obj
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        schema = Schema.from_json(obj, MAPPERS)
    except ShmTableError:
        return
    assert Schema.from_json(schema.to_json(), MAPPERS) == schema
