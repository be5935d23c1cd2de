"""Element types by every spelling that is taken, and the refusal of all others."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import DTYPES, as_dtype
from shmtable.errors import SpecError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        (bool, "bool"),
        (int, "int64"),
        (float, "float64"),
        (complex, "complex128"),
        ("float32", "float32"),
        ("float", "float64"),
        ("int", "int64"),
        ("half", "float16"),
        ("<f4", "float32"),
        ("bfloat16", "bfloat16"),
        ("torch.int16", "int16"),
        (np.float32, "float32"),
        (np.dtype("uint32"), "uint32"),
        (np.dtype(">i2"), "int16"),
        (np.bool_, "bool"),
        (torch.float64, "float64"),
        (torch.uint16, "uint16"),
        (torch.bfloat16, "bfloat16"),
        (torch.float8_e5m2, "float8_e5m2"),
    ],
)
def test_spellings(spelling: Any, name: str) -> None:
    assert as_dtype(spelling).name == name


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_found_by_each_of_its_forms(name: str) -> None:
    dtype = DTYPES[name]
    assert as_dtype(name) is dtype
    assert as_dtype(dtype.torch) is dtype
    assert as_dtype(dtype) is dtype
    assert pickle.loads(pickle.dumps(dtype)) == dtype
    assert str(dtype) == name


@pytest.mark.parametrize("name", DTYPES)
def test_all_forms_have_the_same_size(name: str) -> None:
    dtype = DTYPES[name]
    assert dtype.itemsize == dtype.torch.itemsize == dtype.numpy.itemsize == dtype.carrier.itemsize


@pytest.mark.parametrize("name", DTYPES)
def test_exact_numpy_means_the_same_numbers(name: str) -> None:
    dtype = DTYPES[name]
    ones = torch.ones(2).to(dtype.torch)
    if dtype.exact_numpy:
        assert ones.numpy().dtype == dtype.numpy
    else:
        with pytest.raises(TypeError):
            ones.numpy()


@pytest.mark.parametrize(
    "spelling",
    [None, "real", "", str, object, "datetime64[s]", np.longdouble, torch.quint8, 3, [("a", "f4")]],
)
def test_anything_else_is_refused(spelling: Any) -> None:
    with pytest.raises(SpecError) as raised:
        as_dtype(spelling)
    assert str(raised.value) == (
        f"dtype {spelling!r} cannot be stored; give a numpy or torch dtype, bool, int or float, "
        f"or one of the names {', '.join(DTYPES)}"
    )
    assert raised.value.dtype == repr(spelling)  # type: ignore[attr-defined]
