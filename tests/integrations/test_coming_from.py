"""The tables for those who come from elsewhere name what their libraries have."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.house.calls import Language, cells, codes, wrong

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
OF_OTHERS = {"RecurrentRolloutBuffer"}  # of sb3_contrib


def names_of(*modules: str) -> dict[str, Any]:
    names: dict[str, Any] = dict.fromkeys(OF_OTHERS)
    for module in modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchRL warns of parts of its own that will go
            names |= vars(importlib.import_module(module))
    return names


def theirs(title: str) -> list[str]:
    """The pieces of code in the left column of a section."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return [code for left, _ in cells(section) for code in codes(left)]


def test_torchrl() -> None:
    pytest.importorskip("torchrl")
    names = names_of(
        "torchrl.data", "torchrl.data.replay_buffers.scheduler", "torchrl.envs.transforms"
    )
    stands_for = {"rb": (names["TensorDictReplayBuffer"],)}
    language = Language(names, stands_for, whole="ReplayBuffer")
    pieces = theirs("TorchRL")
    assert len(pieces) > 20
    assert [finding for code in pieces for finding in wrong(code, language)] == []
    assert wrong("SliceSampler(slices=2)", language) and wrong("rb.extent(td)", language)


def test_stable_baselines3() -> None:
    pytest.importorskip("stable_baselines3")
    names = names_of(
        "stable_baselines3",
        "stable_baselines3.common.buffers",
        "stable_baselines3.common.off_policy_algorithm",
        "stable_baselines3.common.vec_env",
    )
    stands_for = {
        "buffer": (names["ReplayBuffer"], SimpleNamespace(full=None)),  # an instance's own
        "model": (names["OffPolicyAlgorithm"],),
    }
    language = Language(names, stands_for, whole="ReplayBuffer")
    pieces = theirs("Stable-Baselines3")
    assert len(pieces) > 20
    assert [finding for code in pieces for finding in wrong(code, language)] == []
    assert wrong("ReplayBuffer(n)", language) and wrong("model.save_buffer(path)", language)
