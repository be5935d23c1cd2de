"""The documentation's page on the format is enough to write a reader from: here is one."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import ArrayMemoryTable
from tests.golden import content as golden

MakeTable = Callable[..., ArrayMemoryTable]


def read(path: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Configuration, and rows by identity and column; knows the page and not the package."""
    with zipfile.ZipFile(path) as archive:
        data = {name: archive.read(name) for name in archive.namelist()}
    assert data["version"].decode() == "1"
    configuration = json.loads(data["configuration.json"])

    def array(name: str) -> Any:
        return np.load(io.BytesIO(data[f"{name}.npy"]), allow_pickle=False)

    sequences: dict[int, dict[str, Any]] = {key: {} for key in configuration["ids"]}
    for name, kind, state in configuration["columns"]:
        assert (kind == "VirtualColumn") == ("target_name" in state)
        if name not in configuration["part_keys"]:
            assert kind == "VirtualColumn"
            continue
        rows, ranges = array(name), array(f"{name}.ranges")
        assert list(rows.shape[1:]) == state["shape"]
        assert rows.dtype == np.dtype(state["dtype"])
        assert ranges.dtype == np.int64
        owners = np.zeros(len(rows), int)
        for identity, first, count in ranges.tolist():
            sequences[identity][name] = rows[first : first + count]
            owners[first : first + count] += 1
        assert (owners == 1).all()
    return configuration, sequences


@pytest.mark.parametrize("name", ["v1", "v1-coverage"])
def test_golden_files(name: str) -> None:
    configuration, sequences = read(golden.FOLDER / f"{name}.zip")
    assert configuration["length_key"] == "actions"
    for i, identity in enumerate(sequences):
        expected_identity, expected = golden.sequence(i)
        assert identity == expected_identity
        expected["terminal"] = expected["terminal"].reshape(1)
        for column, rows in expected.items():
            np.testing.assert_array_equal(sequences[identity][column], rows)


def test_what_is_stored_here_is_what_the_other_system_stores(
    make_table: MakeTable, tmp_path: Path
) -> None:
    table = make_table(columns=golden.columns(), maxlen=1000)
    table.restore(golden.FOLDER / "v1")
    table.store(tmp_path / "t")
    theirs, ours = read(golden.FOLDER / "v1.zip"), read(tmp_path / "t.zip")
    assert ours[0] == theirs[0]
    assert list(ours[1]) == list(theirs[1])
    for identity, columns in theirs[1].items():
        for name, rows in columns.items():
            np.testing.assert_array_equal(ours[1][identity][name], rows)
    with (
        zipfile.ZipFile(golden.FOLDER / "v1.zip") as one,
        zipfile.ZipFile(tmp_path / "t.zip") as two,
    ):
        more = set(two.namelist()) - set(one.namelist())
        assert set(one.namelist()) <= set(two.namelist())
    assert all(name.startswith("shmtable.") for name in more)
