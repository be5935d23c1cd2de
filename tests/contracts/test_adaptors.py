"""What every adaptor promises; a new one is tested by adding it to CASES."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch

import shmtable.adaptors
from shmtable.adaptors import (
    Adaptor,
    DictObsAdaptor,
    KeyCastAdaptor,
    KeyScaleAdaptor,
    TerminalAdaptor,
)
from shmtable.errors import SpecError
from tests.adaptors.samples import COUNT, STEPS, sample

# An adaptor of each kind, and the columns it needs.
CASES: dict[str, tuple[Callable[[], Adaptor], list[str]]] = {
    "dict obs": (lambda: DictObsAdaptor(["obs", "pixels"]), ["obs", "next_pixels"]),
    "dict obs only": (lambda: DictObsAdaptor(["obs"], ["o"], with_next=False), ["obs"]),
    "scale": (lambda: KeyScaleAdaptor(0.5, "obs"), ["obs"]),
    "scale each": (lambda: KeyScaleAdaptor(np.array([1.0, 2.0]), "obs"), ["obs"]),
    "cast": (lambda: KeyCastAdaptor("float64", "pixels"), ["pixels"]),
    "terminal": (lambda: TerminalAdaptor("masks", "terminal"), ["masks", "terminal"]),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Adaptor, list[str]]:
    make, needed = CASES[request.param]
    return make(), needed


def plain(value: Any) -> Any:
    """The same with tensors as dtype, shape and list, to compare."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return value.dtype, value.shape, value.tolist()


def test_every_adaptor_is_here() -> None:
    kinds = {type(make()).__name__ for make, _ in CASES.values()}
    assert kinds == set(shmtable.adaptors.__all__) - {"Adaptor"}


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
def test_origin_and_other_columns_stay(case: tuple[Adaptor, list[str]], layout: str) -> None:
    given = sample(layout)
    points, weights = given.points, given.weights
    untouched = torch.arange(6)
    given["untouched"] = untouched
    result = case[0](given, COUNT, STEPS)
    assert result.points is points
    assert result.weights is weights
    assert result["untouched"] is untouched


def test_layouts_give_the_same_numbers(case: tuple[Adaptor, list[str]]) -> None:
    flat, batch_time = (case[0](sample(layout), COUNT, STEPS) for layout in ("flat", "batch_time"))
    assert list(flat) == list(batch_time)

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(inner) for key, inner in value.items()}
        return value.dtype, value.reshape(-1).tolist()

    assert numbers(flat) == numbers(batch_time)


@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_it_pickles(case: tuple[Adaptor, list[str]], dumps: Callable[[Any], bytes]) -> None:
    again = pickle.loads(dumps(case[0]))
    assert plain(again(sample(), COUNT, STEPS)) == plain(case[0](sample(), COUNT, STEPS))


def test_it_can_be_used_again(case: tuple[Adaptor, list[str]]) -> None:
    first, second = (case[0](sample(), COUNT, STEPS) for _ in range(2))
    assert plain(first) == plain(second)


def test_missing_columns(case: tuple[Adaptor, list[str]]) -> None:
    adaptor, needed = case
    for key in needed:
        given = sample()
        del given[key]
        before = dict(given)
        with pytest.raises(SpecError) as raised:
            adaptor(given, COUNT, STEPS)
        assert str(raised.value) == (
            f"{type(adaptor).__name__}: the sample has nothing under '{key}'; name one of its "
            f"columns {', '.join(before)}, or change the order of the adaptors"
        )
        assert given == before


def test_columns_that_were_made_something_else(case: tuple[Adaptor, list[str]]) -> None:
    adaptor, needed = case
    given = sample()
    given[needed[0]] = {}
    with pytest.raises(SpecError) as raised:
        adaptor(given, COUNT, STEPS)
    assert str(raised.value).startswith(
        f"{type(adaptor).__name__}: the sample has a dict under '{needed[0]}'; name one of its"
    )
