"""The public names are sorted, complete and documented."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import shmtable
from shmtable import errors
from tests.house.public import (
    missing_names,
    undocumented_members,
    undocumented_names,
    unsorted_names,
)

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_public_names_are_sorted() -> None:
    assert unsorted_names(shmtable) == []


def test_public_names_are_complete() -> None:
    assert missing_names(shmtable) == []


def test_every_error_is_public() -> None:
    raised = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.ShmTableError)
    ]
    assert [name for name in raised if name not in shmtable.__all__] == []


def test_everything_public_is_documented() -> None:
    assert undocumented_names(shmtable, REFERENCE) == []


def test_every_public_method_says_what_it_does() -> None:
    classes = [
        value for name in shmtable.__all__ if inspect.isclass(value := getattr(shmtable, name))
    ]
    assert [finding for cls in classes for finding in undocumented_members(cls)] == []


@pytest.fixture
def planted() -> ModuleType:
    """A module that does everything wrong once."""

    class Bare:
        def method(self) -> None: ...

    @dataclass
    class Signature:
        x: int

    class Told:
        """Told."""

        def method(self) -> None:
            """Does it."""

    module = ModuleType("planted")
    vars(module).update(
        LIMIT=3, Told=Told, Bare=Bare, Signature=Signature, forgotten=lambda: None, os=inspect
    )
    module.__all__ = ["Told", "Bare", "LIMIT", "Signature", "gone"]  # type: ignore[attr-defined]
    return module


def test_wrong_order_is_found(planted: ModuleType) -> None:
    assert unsorted_names(planted) == ["Told before Bare", "Bare before LIMIT"]


def test_missing_names_are_found(planted: ModuleType) -> None:
    assert missing_names(planted) == [
        "gone is listed and not there",
        "forgotten is there and not listed",
    ]


def test_missing_documentation_is_found(planted: ModuleType, tmp_path: Path) -> None:
    planted.__all__ = ["Bare", "Signature", "Told"]  # type: ignore[attr-defined]
    (tmp_path / "page.md").write_text(
        ".. autoclass:: shmtable.Bare\n.. autoclass:: shmtable.Old\n"
        ".. autoclass:: shmtable.Signature\nTold is only mentioned: shmtable.Told\n"
    )
    assert undocumented_names(planted, tmp_path) == [
        "Bare has no docstring",
        "Signature has no docstring",
        f"Told has no directive in {tmp_path}",
        "Old is documented and not public",
    ]
    assert undocumented_members(planted.Bare) == ["Bare.method has no docstring"]
    assert undocumented_members(planted.Told) == []
