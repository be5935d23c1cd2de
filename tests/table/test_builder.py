"""Ready-made tables: the columns they have, and how their samples are arranged."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    DictMemoryTable,
    DictObsMemoryTable,
    DictObsNStepMemoryTable,
    FifoSampleStrategy,
    NextElementMapper,
    SpecError,
    UniformEjectionStrategy,
    VirtualColumn,
)


def space(shape: tuple[int, ...], dtype: str) -> Any:
    return SimpleNamespace(shape=shape, dtype=np.dtype(dtype))


STATE = {"image": space((2, 2), "uint8"), "speed": space((3,), "float32")}
SPACES = SimpleNamespace(
    rewards=space((), "float64"),
    actions=space((2,), "float32"),
    state=SimpleNamespace(spaces=STATE),
)
Make = Callable[..., Any]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes tables of a class, checks and closes them afterwards."""
    with ExitStack() as stack:

        def made(cls: type[ArrayMemoryTable], **options: Any) -> ArrayMemoryTable:
            table = cls(**{"maxlen": 100, "seed": 1, **options})
            stack.enter_context(table)
            stack.callback(lambda: _sound(table))
            return table

        yield made


def _sound(table: ArrayMemoryTable) -> None:
    assert table.check() == []


def sequence(length: int, **more: Any) -> dict[str, Any]:
    return {
        "actions": np.zeros((length, 2), np.float32),
        "rewards": np.arange(length, dtype=np.float64),
        "image": np.arange(4 * (length + 1), dtype=np.uint8).reshape(-1, 2, 2),
        "speed": np.arange(3 * (length + 1), dtype=np.float32).reshape(-1, 3),
        **more,
    }


def test_single_steps(make: Make) -> None:
    table = make(DictObsMemoryTable, spaces=SPACES)
    assert [column.name for column in table.columns] == [
        *("actions", "dones", "masks", "rewards"),
        *("image", "next_image", "speed", "next_speed"),
    ]
    table.add_sequence(1, sequence(5))
    batch = table.sample(4, 5)
    assert set(batch) == {
        *("actions", "dones", "masks", "rewards"),
        *("observation", "next_observation"),
    }
    speed, following = (batch[name]["speed"] for name in ("observation", "next_observation"))
    assert torch.equal(speed + 3, following)
    assert batch["next_observation"]["image"].shape == (20, 2, 2)
    assert batch["rewards"].dtype == torch.float64
    assert batch["dones"].view(4, 5).tolist() == [[False] * 4 + [True]] * 4
    assert batch["masks"].view(4, 5).tolist() == [[1.0] * 4 + [0.0]] * 4


def test_one_bootstrap_value_per_window(make: Make) -> None:
    table = make(DictObsNStepMemoryTable, spaces=SPACES)
    table.add_sequence(1, sequence(8))
    batch = table.sample(6, 3)
    last = batch["observation"]["speed"].view(6, 3, 3)[:, -1]
    assert torch.equal(batch["next_observation"]["speed"], last + 3)


@pytest.mark.parametrize("cls", [DictObsMemoryTable, DictObsNStepMemoryTable])
@pytest.mark.parametrize("cut_off", [0.0, 1.0])
def test_terminal_column(make: Make, cls: type[ArrayMemoryTable], cut_off: float) -> None:
    table = make(cls, spaces=SPACES, use_terminal_column=True)
    table.add_sequence(1, sequence(3, terminal=cut_off))
    assert table.sample(2, 3)["masks"].view(2, 3).tolist() == [[1.0, 1.0, cut_off]] * 2


def test_options_reach_the_table(make: Make) -> None:
    table = make(
        DictObsMemoryTable,
        spaces=SPACES,
        maxlen=70,
        sampler=FifoSampleStrategy(),
        ejector=UniformEjectionStrategy(),
        device="cpu",
        dones_dtype=torch.uint8,
        masks_dtype=np.float64,
        layout="batch_time",
        pad="edge",
        adaptors=[lambda result, count, steps: result],
    )
    table.add_sequence(1, sequence(2))
    batch = table.sample(1, 3)
    assert table.maxlen == 70
    assert len(table.adaptors) == 2
    assert batch["observation"]["speed"].shape == (1, 3, 3)
    assert batch["dones"].dtype == torch.uint8
    assert batch["masks"].dtype == torch.float64
    assert batch["mask"].tolist() == [[True, True, False]]
    core = table._core
    assert (type(core.sampler), type(core.ejector)) == (FifoSampleStrategy, UniformEjectionStrategy)


def test_rewards_without_a_space(make: Make) -> None:
    spaces = SimpleNamespace(rewards=None, actions=SPACES.actions, state=SPACES.state)
    table = make(DictObsMemoryTable, spaces=spaces)
    assert table.columns[3] == Column("rewards", (1,), "float32")


def test_other_columns(make: Make) -> None:
    columns = [
        Column("moves", (), int),
        Column("x", (), "float32"),
        VirtualColumn("next_x", (), "float32", "x", NextElementMapper),
    ]
    table = make(
        DictMemoryTable,
        use_terminal_column=False,
        obs_keys=["x"],
        columns=columns,
        length_key="moves",
    )
    table.add_sequence(1, {"moves": [1, 2], "x": [0.0, 1.0, 2.0]})
    batch = table.sample(1, 2)
    assert batch["next_observation"]["x"].tolist() == [1.0, 2.0]
    assert len(columns) == 3


@pytest.mark.parametrize(
    ("keys", "terminal", "name"), [(["x"], False, "next_x"), ([], True, "masks")]
)
def test_columns_that_samples_need(keys: list[str], terminal: bool, name: str) -> None:
    with pytest.raises(SpecError) as raised:
        DictMemoryTable(
            use_terminal_column=terminal, obs_keys=keys, columns=[Column("x", (), int)], maxlen=5
        )
    assert str(raised.value).startswith(f"column '{name}' is missing from x")


def test_pickled_tables_arrange_samples_too(make: Make) -> None:
    table = make(DictObsMemoryTable, spaces=SPACES, use_terminal_column=True)
    table.add_sequence(1, sequence(3, terminal=1))
    with pickle.loads(pickle.dumps(table)) as other:
        assert set(other.sample(1, 1)["observation"]) == {"image", "speed"}


def test_attached_tables_take_adaptors(make: Make, unique_name: Callable[[], str]) -> None:
    table = make(DictObsMemoryTable, spaces=SPACES, name=unique_name())
    table.add_sequence(1, sequence(3))
    with DictMemoryTable.attach(table._core.arena.name, adaptors=table.adaptors) as other:
        assert set(other.sample(1, 1)["next_observation"]) == {"image", "speed"}


@pytest.mark.parametrize("vectorised", [False, True])
def test_environments(make: Make, vectorised: bool) -> None:
    prefix = "single_" if vectorised else ""
    names = {
        f"{prefix}observation_space": SimpleNamespace(spaces=STATE, shape=None, dtype=None),
        f"{prefix}action_space": space((), "int64"),
    }
    if vectorised:
        names |= {"observation_space": space((9, 4), "int8"), "action_space": space((9,), "int8")}
    table = make(DictObsMemoryTable, spaces=SimpleNamespace(**names))
    assert table.columns[0] == Column("actions", (), "int64")
    assert [column.name for column in table.columns[4::2]] == ["image", "speed"]


def test_gymnasium(make: Make) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    environment = gymnasium.make("CartPole-v1")
    table = make(DictObsNStepMemoryTable, spaces=environment)
    assert table.columns[0] == Column("actions", (), "int64")
    assert table.columns[4] == Column("obs", (4,), "float32")
    spaces = gymnasium.spaces
    state = spaces.Dict({"a": spaces.Box(0, 255, (4, 4), np.uint8), "b": spaces.Discrete(3)})
    given = SimpleNamespace(rewards=None, actions=spaces.MultiBinary(5), state=state)
    table = make(DictObsMemoryTable, spaces=given)
    assert table.columns[0] == Column("actions", (5,), "int8")
    assert table.columns[4::2] == (Column("a", (4, 4), "uint8"), Column("b", (), "int64"))
    environment.close()


@pytest.mark.parametrize("spaces", [None, {}, SimpleNamespace(actions=space((), "int64"))])
def test_no_spaces(spaces: Any) -> None:
    with pytest.raises(SpecError) as raised:
        DictObsMemoryTable(spaces=spaces)
    assert str(raised.value) == (
        f"spaces is {spaces!r:.100}; give an object with rewards, actions and state.spaces, a "
        "mapping of name to space, or a Gymnasium environment"
    )


def test_spaces_of_several_arrays() -> None:
    nested = SimpleNamespace(spaces=STATE, shape=None, dtype=None)
    spaces = SimpleNamespace(
        rewards=None, actions=SPACES.actions, state=SimpleNamespace(spaces={"inner": nested})
    )
    with pytest.raises(SpecError, match=r"^column 'inner': its space .* has no single shape and"):
        DictObsMemoryTable(spaces=spaces)
