"""Every file that was ever written is read, to the last number."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import ArrayMemoryTable, TableSerializationVersion
from tests.golden import content

MakeTable = Callable[..., ArrayMemoryTable]

# A golden file that has changed is none.
SUMS = {
    "legacy": "f2cc61abdb847e52be27e5344b998681de8279f709453ba7b010469c514022e5",
    "v1-coverage": "17339d0f838bd164920454cbd2a31efa6dda6b5946c5f7587ac46a84675e005c",
    "v1": "81c285dbad34833c831d54dbff5441fe41b7a45796d957b6a9be9ccebbcaec49",
}


def assert_golden(table: ArrayMemoryTable, identity_of: Callable[[int], int]) -> None:
    expected = [content.sequence(i) for i in range(content.SEQUENCES)]
    assert table.identities().tolist() == [identity_of(identity) for identity, _ in expected]
    assert table.size() == content.TRANSITIONS
    for identity, columns in expected:
        found = table.sequence(identity_of(identity))
        assert list(found) == list(columns)
        for name, rows in columns.items():
            assert found[name].numpy().dtype == np.asarray(rows).dtype
            np.testing.assert_array_equal(found[name].numpy(), rows, err_msg=name)


def restored(table: ArrayMemoryTable, path: Path, **options: Any) -> ArrayMemoryTable:
    """Restores a path given with its suffix."""
    assert table.restore(str(path.with_suffix("")), **options) is True
    return table


@pytest.fixture
def table(make_table: MakeTable) -> ArrayMemoryTable:
    return make_table(columns=content.columns(), maxlen=1000)


@pytest.mark.parametrize("name", SUMS)
def test_they_are_never_rewritten(name: str) -> None:
    data = (content.FOLDER / f"{name}.zip").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SUMS[name]


def test_v1(table: ArrayMemoryTable) -> None:
    restored(table, content.FOLDER / "v1.zip")
    assert_golden(table, lambda identity: identity)


def test_v1_of_a_sampler_that_is_not_known_here(table: ArrayMemoryTable) -> None:
    with pytest.warns(UserWarning, match="CoverageBasedSampleStrategy.*UniformSampleStrategy"):
        restored(table, content.FOLDER / "v1-coverage.zip")
    assert_golden(table, lambda identity: identity)


def test_legacy(table: ArrayMemoryTable) -> None:
    with pytest.warns(DeprecationWarning, match="Legacy"):
        restored(table, content.FOLDER / "legacy.zip")
    assert_golden(table, lambda identity: -identity - 1)


def test_what_was_restored_can_be_sampled(table: ArrayMemoryTable) -> None:
    restored(table, content.FOLDER / "v1.zip")
    sample = table.sample(64, 3)
    features, following = sample["features"].numpy(), sample["next_features"].numpy()
    np.testing.assert_array_equal(following, features + 0.5)
    ends = sample["dones"].numpy().reshape(-1)
    np.testing.assert_array_equal(sample["masks"].numpy().reshape(-1), 1.0 - ends)


@pytest.mark.parametrize("version", list(TableSerializationVersion))
def test_stored_again_it_is_the_same(
    table: ArrayMemoryTable,
    make_table: MakeTable,
    tmp_path: Path,
    version: TableSerializationVersion,
) -> None:
    legacy = version is TableSerializationVersion.Legacy
    restored(table, content.FOLDER / "v1.zip")
    other = make_table(columns=content.columns(), maxlen=1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert table.store(str(tmp_path / "again"), version) is True
        restored(other, tmp_path / "again.zip")
    assert [w.category for w in caught] == [DeprecationWarning, DeprecationWarning] * legacy
    assert all(w.filename == __file__ for w in caught)
    assert_golden(other, (lambda k: -k - 1) if legacy else lambda k: k)
