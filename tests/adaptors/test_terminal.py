"""Masks at the end of a sequence."""

from __future__ import annotations

import pytest
import torch

from shmtable.adaptors import TerminalAdaptor
from shmtable.errors import SpecError
from tests.adaptors.samples import COUNT, STEPS, sample

EXPECTED = [1.0, 1.0, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 3), (2, 3, 1)])
@pytest.mark.parametrize("tag_shape", [(2,), (2, 1)])
def test_shapes(shape: tuple[int, ...], tag_shape: tuple[int, ...]) -> None:
    given = sample()
    given["masks"] = given["masks"].view(shape)
    given["terminal"] = given["terminal"].view(tag_shape)
    result = TerminalAdaptor("masks", "terminal")(given, COUNT, STEPS)["masks"]
    assert result.shape == shape
    assert result.reshape(-1).tolist() == EXPECTED


def test_arguments_by_name() -> None:
    adaptor = TerminalAdaptor(target_key="masks", value_key="terminal")
    assert adaptor(sample(), COUNT, STEPS)["masks"].tolist() == EXPECTED


def test_single_steps() -> None:
    given = sample(masks=torch.tensor([0.0, 1.0]))
    assert TerminalAdaptor("masks", "terminal")(given, 2, 1)["masks"].tolist() == [0.5, 1.0]


def test_every_end_of_a_window_takes_its_own_windows_tag() -> None:
    given = sample(masks=torch.zeros(6))
    result = TerminalAdaptor("masks", "terminal")(given, COUNT, STEPS)
    assert result["masks"].tolist() == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_whatever_is_not_one_is_an_end() -> None:
    given = sample(masks=torch.tensor([1.0, 0.9, 0.0, 1.0, 2.0, 1.0]))
    result = TerminalAdaptor("masks", "terminal")(given, COUNT, STEPS)
    assert result["masks"].tolist() == [1.0, 0.5, 0.5, 1.0, 0.25, 1.0]


def test_of_values_per_step_the_windows_last_counts() -> None:
    given = sample(masks=torch.zeros(6))
    given["terminal"] = torch.arange(6.0)
    result = TerminalAdaptor("masks", "terminal")(given, COUNT, STEPS)
    assert result["masks"].tolist() == [2.0, 2.0, 2.0, 5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("mask", "tag", "expected"),
    [
        (torch.float32, torch.float64, torch.float32),
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.float32, torch.bool, torch.float32),
        (torch.bool, torch.float32, torch.float32),
        (torch.bool, torch.bool, torch.bool),
        (torch.int64, torch.float32, torch.float32),
    ],
)
def test_dtypes(mask: torch.dtype, tag: torch.dtype, expected: torch.dtype) -> None:
    given = sample(masks=sample()["masks"].to(mask))
    given["terminal"] = torch.ones(2).to(tag)
    result = TerminalAdaptor("masks", "terminal")(given, COUNT, STEPS)["masks"]
    assert result.dtype == expected
    assert result.tolist() == [1.0] * 6


@pytest.mark.parametrize(
    ("key", "shape"), [("masks", (6, 2)), ("masks", (2,)), ("terminal", (3,)), ("terminal", (2, 2))]
)
def test_shapes_that_do_not_fit(key: str, shape: tuple[int, ...]) -> None:
    given = sample()
    given[key] = torch.ones(shape)
    shapes = {name: tuple(given[name].shape) for name in ("masks", "terminal")}
    with pytest.raises(SpecError) as raised:
        TerminalAdaptor("masks", "terminal")(given, COUNT, STEPS)
    assert str(raised.value) == (
        f"TerminalAdaptor: 'masks' has shape {shapes['masks']} and 'terminal' "
        f"{shapes['terminal']} for 2 windows of 3 steps; give a mask with one value per step and "
        "a tag with one value per window"
    )


def test_keys_are_names() -> None:
    with pytest.raises(SpecError, match=r"^value_key is 0; give the name of a column$"):
        TerminalAdaptor("masks", 0)  # type: ignore[arg-type]
