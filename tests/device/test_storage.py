"""A device's storage beside the CPU's: the same answers to everything, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import Column, Converter, CpuStorage, Schema, TagColumn
from shmtable.columns import device as device_module
from shmtable.columns.sending import sent_together
from tests.columns.placing import bits
from tests.columns.test_storage import random_values
from tests.device.backends import FileBackend
from tests.device.conftest import stored

ROWS, SLOTS = 60, 7
COLUMNS = [
    Column("flag", (), "bool"),
    Column("obs", (3, 2), "float32"),
    Column("half", (5,), "bfloat16"),
    Column("image", (9, 9, 4), "uint8"),
    Column("wide", (2,), "complex128"),
    Column("odd", (7,), "float8_e4m3fn"),
    Column("state", (3,), "uint16", first_only=True),
    TagColumn("who", (3,), "int16"),
    TagColumn("score", (), "float64"),
]
SCHEMA = Schema.build(COLUMNS, "flag")
NAMES = [column.name for column in SCHEMA.stored]


def both() -> tuple[CpuStorage, Any]:
    """The two storages with the same random rows."""
    random = np.random.default_rng(3)

    def filled(size: int) -> torch.Tensor:
        return torch.from_numpy(random.integers(0, 2, size, np.uint8))

    rows = {name: filled(ROWS * stride) for name, stride in SCHEMA.regions.items()}
    tags = {tag.name: filled(SLOTS * tag.row_bytes) for tag in SCHEMA.tags}
    device = stored(SCHEMA, rows, tags)
    return CpuStorage(SCHEMA, rows, tags), device


def assert_alike(one: torch.Tensor, other: torch.Tensor) -> None:
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert torch.equal(bits(one), bits(other))


def assert_same_rows(cpu: CpuStorage, device: Any) -> None:
    for name in NAMES:
        assert_alike(device.read(name, 0, ROWS), cpu.read(name, 0, ROWS))
    for tag in SCHEMA.tags:
        for slot in range(SLOTS):
            assert_alike(device.read_tag(tag.name, slot), cpu.read_tag(tag.name, slot))


def sequence(length: int, seed: int, extra: int = 0) -> dict[str, Any]:
    """Tensors of the columns' own dtypes; some bring ``extra`` rows more."""
    given = {
        column.name: random_values(
            column.dtype.name, (length + extra * (place % 2), *column.shape), seed + place
        )
        for place, column in enumerate(SCHEMA.stored)
    }
    for tag in SCHEMA.tags:
        given[tag.name] = random_values(tag.dtype.name, tag.shape, seed)
    return given


@pytest.mark.parametrize("on_device", [[], NAMES, NAMES[:3], ["obs"]])
@pytest.mark.parametrize("extra", [0, 1])
def test_writing(on_device: list[str], extra: int) -> None:
    cpu, device = both()
    given = sequence(9, 5, extra)
    arrays = Converter(SCHEMA, 100).prepare(given)
    # As tensors only those named: the others have a dtype that must be converted first.
    mixed = Converter(SCHEMA, 100, torch.device("cpu")).prepare(given)
    assert all(isinstance(rows, torch.Tensor) for rows in mixed.rows)
    mixed.rows = [
        tensor if name in on_device else array
        for name, tensor, array in zip(NAMES, mixed.rows, arrays.rows, strict=True)
    ]
    before = {name: device.read(name, 0, ROWS) for name in NAMES}
    cpu.write(11, 4, arrays)
    device.write(11, 4, mixed)
    for name in NAMES:
        count = len(given[name])
        assert_alike(device.read(name, 11, count), given[name])
        # Up to the longest column's end the rows are the sequence's own, whatever they hold.
        assert_alike(device.read(name, 0, 11), before[name][:11])
        assert_alike(device.read(name, 11 + 9 + extra, 30), before[name][20 + extra : 50 + extra])
    for tag in SCHEMA.tags:
        for slot in range(SLOTS):
            assert_alike(device.read_tag(tag.name, slot), cpu.read_tag(tag.name, slot))


def test_tensors_of_the_device_stay_as_they_are_if_they_fit() -> None:
    schema = Schema.build([Column("x", (2,), "float32")], "x")
    converter = Converter(schema, 10, torch.device("cpu"))
    kept = torch.arange(12.0).view(6, 2)
    assert converter.prepare({"x": kept}).rows[0].data_ptr() == kept.data_ptr()
    assert isinstance(converter.prepare({"x": kept.double()}).rows[0], np.ndarray)
    elsewhere = Converter(schema, 10, torch.device("meta"))
    assert isinstance(elsewhere.prepare({"x": kept}).rows[0], np.ndarray)
    # Slices and transposes are copied as what they show.
    _, rows = kept[1:4], kept.T.contiguous().T[1:4]
    storage = stored(schema, {"x": torch.zeros(80, dtype=torch.uint8)}, {})
    storage.write(2, 0, converter.prepare({"x": rows.requires_grad_()}))
    assert storage.read("x", 2, 3).tolist() == kept[1:4].tolist()


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("shift", [0, 2])
def test_gathering(length: int, shift: int) -> None:
    cpu, device = both()
    starts = np.array([0, ROWS - length - shift, 5, 5, 17])

    def gather(storage: Any) -> dict[str, torch.Tensor]:
        found = {name: storage.gather(name, starts, length, shift) for name in NAMES}
        copied: dict[str, torch.Tensor] = {}
        storage.gather_copied(starts, length, copied)
        found.update({f"{name} copied": copied[name] for name in copied})
        return found | {"who": storage.gather_tags("who", np.array([3, 3, 0]))}

    expected, found = gather(cpu), device.whole(lambda: gather(device))
    for name in expected:
        assert_alike(found[name], expected[name])
    assert_alike(device.gather("obs", starts, length, shift), expected["obs"])
    for name in found:  # nobody else has the same elements, the storage itself among them
        others = {other: found[other].clone() for other in found if other != name}
        found[name].zero_()
        assert all(torch.equal(bits(found[n]), bits(others[n])) for n in others)
    assert_same_rows(cpu, device)


def test_places_are_sent_once_for_all_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    _, device = both()
    sent = []
    original = FileBackend.send
    monkeypatch.setattr(
        FileBackend, "send", lambda self, host: (sent.append(len(host)), original(self, host))[1]
    )
    starts = np.array([4, 9, 30])
    device.whole(lambda: {name: device.gather(name, starts, 5) for name in NAMES})
    assert sent == [24]
    device.whole(lambda: {name: device.gather(name, starts, 5) for name in NAMES})
    assert sent == [24, 24]  # a batch remembers nothing of the one before


@pytest.mark.parametrize("wrong", [ROWS - 4, -1])
def test_rows_that_are_not_there_are_never_asked_of_the_device(
    monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    _, device = both()

    def refuse(*_: Any) -> None:
        raise AssertionError("a device would have ended the process")

    monkeypatch.setattr(FileBackend, "select", refuse)
    with pytest.raises(IndexError):
        device.gather("obs", np.array([3, wrong, 5]), 5)
    with pytest.raises(IndexError):
        device.gather_tags("who", np.array([SLOTS]))


def test_windows_take_the_places_of_others() -> None:
    cpu, device = both()
    places = np.array([2, 0])
    for storage in (cpu, device):
        target, values = torch.arange(24).view(4, 3, 2), torch.arange(100, 112).view(2, 3, 2)
        storage.replace([(target, values), (target.clone(), values)], places)
        assert target[:, 0, 0].tolist() == [106, 6, 100, 18]


def test_single_rows_are_stored_in_order() -> None:
    cpu, device = both()
    rows = np.array([7, 3, 7, 50, 3, 7])
    for column in SCHEMA.stored:
        values = random_values(column.dtype.name, (6, *column.shape), 9)
        array = bits(values).numpy().view(column.dtype.numpy).reshape(6, *column.shape)
        cpu.put(column.name, rows, array)
        device.put(column.name, rows, array)
    assert_same_rows(cpu, device)


@pytest.mark.parametrize("few", [0, 64])
def test_rows_as_bytes(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(device_module, "_FEW_RUNS", few)
    cpu, device = both()
    starts, counts = np.array([40, 0, 3, 20]), np.array([9, 3, 2, 1])
    for name in NAMES:
        data = b"".join(cpu.bytes_of(name, starts, counts))
        assert b"".join(device.bytes_of(name, starts, counts)) == data
        for storage in (cpu, device):
            rest = memoryview(data[::-1] if name != "flag" else data)
            with storage.filling(name, starts, counts) as targets:
                for target in targets:
                    np.frombuffer(target, np.uint8)[:] = np.frombuffer(
                        rest[: target.nbytes], np.uint8
                    )
                    rest = rest[target.nbytes :]
    slots = np.array([2, 0])
    assert b"".join(device.bytes_of("who", slots, np.ones(2, np.int64))) == b"".join(
        cpu.bytes_of("who", slots, np.ones(2, np.int64))
    )
    assert_same_rows(cpu, device)


def test_what_an_error_interrupts_is_not_filled_in() -> None:
    cpu, device = both()
    with pytest.raises(KeyError), device.filling("obs", np.array([3]), np.array([4])) as targets:
        np.frombuffer(targets[0], np.uint8)[:] = 9
        raise KeyError
    assert_same_rows(cpu, device)


def test_many_tensors_are_sent_in_one_piece() -> None:
    tensors = [
        torch.tensor([True, False, True]),
        torch.arange(6.0, dtype=torch.float64).view(2, 3).T,
        torch.empty(0, 4),
        torch.arange(5, dtype=torch.int64),
        torch.full((2, 2), 1.5, dtype=torch.bfloat16),
    ]
    backend = FileBackend()
    sent = sent_together(tensors, backend)
    for one, other in zip(sent, tensors, strict=True):
        assert_alike(one, other.contiguous())
    sent[0].zero_()
    assert sent[3].tolist() == [0, 1, 2, 3, 4]
    assert sent_together([], backend) == []
