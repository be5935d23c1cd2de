"""Which numbers may become which, without silent loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shmtable.columns import DTYPES, Column
from shmtable.columns.cast import cast, to_array
from shmtable.errors import SequenceError

INTEGERS = [name for name in DTYPES if DTYPES[name].torch in (torch.bool,) or "int" in name]


def converted(value: Any, dtype: str) -> torch.Tensor:
    """What a column of this dtype keeps of a value, as torch would see it."""
    column = Column("x", (), dtype)
    stored = cast(column, *to_array(column, value))
    assert stored.dtype == column.dtype.numpy
    flat = torch.from_numpy(np.ascontiguousarray(stored).reshape(-1).view(np.uint8))
    return flat.view(column.dtype.torch).view(stored.shape)


def refusal(value: Any, dtype: str) -> str:
    with pytest.raises(SequenceError) as raised:
        converted(value, dtype)
    return str(raised.value)


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_kinds(source: str, target: str) -> None:
    kinds = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
    ranks = {
        name: kinds[dtype.numpy.kind if dtype.exact_numpy else "f"]
        for name, dtype in DTYPES.items()
    }
    value = torch.ones(3).to(DTYPES[source].torch)
    if ranks[source] <= ranks[target] or (ranks[source], ranks[target]) == (1, 0):
        assert torch.equal(converted(value, target).to(torch.complex64), torch.ones(3) + 0j)
    else:
        assert "values would lose information" in refusal(value, target)


@given(
    source=st.sampled_from(INTEGERS),
    target=st.sampled_from(INTEGERS),
    data=st.data(),
)
def test_integers_are_kept_or_refused(source: str, target: str, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(DTYPES[source].numpy, st.integers(0, 4)))
    kept = values.astype(DTYPES[target].numpy)
    if [int(v) for v in values] == [int(k) for k in kept]:
        assert converted(values, target).tolist() == kept.tolist()
    else:
        assert f"does not fit into {target}" in refusal(values, target)


@given(data=st.data(), target=st.sampled_from(["float16", "float32"]))
def test_floats_round_but_never_become_infinite(data: st.DataObject, target: str) -> None:
    values = data.draw(hnp.arrays(np.float64, st.integers(1, 4)))
    with np.errstate(over="ignore"):
        kept = values.astype(target)
    if np.array_equal(np.isfinite(kept), np.isfinite(values)):
        assert np.array_equal(converted(values, target).numpy(), kept, equal_nan=True)
    else:
        assert f"does not fit into {target}" in refusal(values, target)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (
            np.array([0, 300]),
            "uint8",
            "column 'x': 300 does not fit into uint8; bring the values into its range, "
            "or declare dtype=int64",
        ),
        ([-1], "uint64", "column 'x': -1 does not fit into uint64; bring"),
        ([0, 2], "bool", "column 'x': 2 does not fit into bool; bring"),
        (
            [1.0, 1e39],
            "float32",
            "column 'x': 1e+39 does not fit into float32; bring the values into its range, "
            "or declare dtype=float64",
        ),
        ([70000], "float16", "column 'x': 70000 does not fit into float16; bring"),
        ([1e39], "bfloat16", "column 'x': 1e+39 does not fit into bfloat16; bring"),
        ([1.0, 500.0], "float8_e4m3fn", "column 'x': 500.0 does not fit into float8_e4m3fn; b"),
        (torch.tensor([-1e6]), "float8_e5m2", "column 'x': -1000000.0 does not fit into float8_e"),
        (
            [0.5],
            "int32",
            "column 'x': float64 values would lose information as int32; round it first, "
            "or declare dtype=float64",
        ),
        ([0.5], "bool", "column 'x': float64 values would lose information as bool; compare it"),
        ([1j], "float32", "column 'x': complex128 values would lose information as float32; take"),
        ([1j], "bfloat16", "column 'x': complex128 values would lose information as bfloat16; ta"),
        (["a"], "float32", "column 'x': holds <U1, declared float32; pass numbers or bools"),
        (None, "float32", "column 'x': holds object, declared float32; pass numbers or bools"),
        ([2**70], "int64", "column 'x': holds object, declared int64; pass numbers or bools"),
        ([{}], "int64", "column 'x': holds object, declared int64; pass numbers or bools"),
        (
            np.array(["2020"], "datetime64[Y]"),
            "int64",
            "column 'x': holds datetime64[Y], declared int64; pass numbers or bools",
        ),
        ([[1.0], [1.0, 2.0]], "float32", "column 'x': its steps do not form one array ("),
        ([torch.ones(1), torch.ones(2)], "float32", "column 'x': its steps do not form one array"),
        ([torch.ones(1), "a"], "float32", "column 'x': its steps do not form one array ("),
    ],
)
def test_refused(value: Any, dtype: str, message: str) -> None:
    assert refusal(value, dtype).startswith(message)


def test_ragged_steps_say_which_shape_they_should_have() -> None:
    assert refusal([[1.0], [1.0, 2.0]], "float32").endswith("; give every step the shape ()")


def test_complex_halves_are_refused() -> None:
    with pytest.warns(UserWarning, match="ComplexHalf"):
        value = torch.zeros(2, dtype=torch.complex32)
    assert refusal(value, "complex64").startswith("column 'x': holds torch.complex32, declared")


def test_infinities_and_nan_are_kept() -> None:
    values = np.array([np.inf, -np.inf, np.nan])
    for dtype in ("float16", "float32", "bfloat16", "float8_e5m2", "complex64"):
        kept = converted(values, dtype).to(torch.complex64).real
        assert torch.equal(kept.isnan(), torch.tensor([False, False, True]))
        assert kept[:2].tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_rounding_to_a_type_numpy_lacks_is_torchs(dtype: str) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    wanted = torch.from_numpy(values).float().to(DTYPES[dtype].torch)
    assert torch.equal(converted(values, dtype).float(), wanted.float())


def test_arrays_for_a_type_numpy_lacks_are_numbers_not_bits() -> None:
    assert converted(np.array([1, 2], np.uint16), "bfloat16").tolist() == [1.0, 2.0]


def test_read_only_arrays() -> None:
    values = np.ones(2, np.float32)
    values.flags.writeable = False
    assert converted(values, "bfloat16").tolist() == [1.0, 1.0]
    assert converted(values, "float64").tolist() == [1.0, 1.0]
