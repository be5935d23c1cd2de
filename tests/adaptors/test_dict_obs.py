"""Observations as dictionaries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shmtable.adaptors import DictObsAdaptor
from shmtable.errors import SpecError
from tests.adaptors.samples import COUNT, STEPS, sample


def test_columns_are_moved() -> None:
    given = sample()
    obs, next_pixels = given["obs"], given["next_pixels"]
    result = DictObsAdaptor(["obs", "pixels"])(given, COUNT, STEPS)
    assert list(result) == ["masks", "terminal", "observation", "next_observation"]
    assert list(result["observation"]) == ["obs", "pixels"]
    assert result["observation"]["obs"] is obs
    assert result["next_observation"]["pixels"] is next_pixels


def test_output_names() -> None:
    result = DictObsAdaptor(["obs", "pixels"], ["state", "image"])(sample(), COUNT, STEPS)
    assert torch.equal(result["observation"]["state"], sample()["obs"])
    assert torch.equal(result["next_observation"]["image"], sample()["next_pixels"])


def test_without_next() -> None:
    given = sample()
    result = DictObsAdaptor(["obs"], with_next=False)(given, COUNT, STEPS)
    assert list(result["observation"]) == ["obs"]
    assert result["next_observation"] == {}
    assert "next_obs" in result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["obs"], "keys is 'obs'; give a list of names, ['obs']"),
        ([["obs"], "state"], "output_keys is 'state'; give a list of names, ['state']"),
        ([[3]], "an entry of keys is 3; give the name of a column"),
        (
            [["a", "b"], ["c"]],
            "output_keys are ['c'] for keys ['a', 'b']; give one name for each, all different",
        ),
        (
            [["a", "b"], ["c", "c"]],
            "output_keys are ['c', 'c'] for keys ['a', 'b']; give one name for each, all different",
        ),
    ],
)
def test_refused(arguments: list[Any], message: str) -> None:
    with pytest.raises(SpecError) as raised:
        DictObsAdaptor(*arguments)
    assert str(raised.value) == message
