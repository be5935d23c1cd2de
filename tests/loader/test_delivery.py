"""Delivery to a device that is pretended: what is copied when, and who waits for whom."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import shmtable.columns.storage
from shmtable import JointTable, MemoryLoader, PrioritizedSampleStrategy, SampleResult
from shmtable.delivery import Delivery
from shmtable.pinned import Slot
from tests.loader.conftest import prefetchers
from tests.pretended import Pretended, pretend  # noqa: F401
from tests.tables import small_sequence, torn_windows


def sample(number: int, rows: int = 3) -> SampleResult:
    """Numbers from which every sample can be told, in several dtypes and depths."""
    return SampleResult(
        {
            "obs": torch.full((rows, 5), float(number)),
            "flags": torch.full((rows,), number % 2 == 1),
            "half": torch.full((rows, 3), number, dtype=torch.bfloat16),
            "none": torch.empty(0, 4),
            "deep": {"turned": torch.full((2, rows), number).t(), "text": "kept"},
        },
        weights=torch.full((rows,), number / 2),
    )


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor):
        return one.dtype is other.dtype and torch.equal(one, other)
    return bool(one == other)


def tensors(batch: SampleResult) -> list[Tensor]:
    plain = [batch[name] for name in ("obs", "flags", "half", "none")]
    return [*plain, batch["deep"]["turned"], batch.weights]


def test_what_is_received_is_what_was_sent() -> None:
    streams = Pretended()
    delivery = Delivery(streams)
    batch = delivery.receive(delivery.send(lambda: sample(7)))
    assert same(batch, sample(7))
    assert torch.equal(batch.weights, sample(7).weights)
    assert all(streams.has(tensor) for tensor in tensors(batch))


def test_many_may_be_under_way_and_none_overwrites_another() -> None:
    streams = Pretended()
    delivery = Delivery(streams)
    sent = [delivery.send(lambda n=n: sample(n, rows=1 + n % 4)) for n in range(9)]
    for number, one in enumerate(sent):
        assert same(delivery.receive(one), sample(number, rows=1 + number % 4))


def test_a_slot_is_filled_again_only_after_its_last_copy() -> None:
    streams = Pretended()
    delivery = Delivery(streams)
    per_sample = len(tensors(sample(0)))
    for number in range(4):
        delivery.send(lambda n=number: sample(n))
    waits = [entry for entry in streams.log if entry != "send"]
    ends = [per_sample * number for number in (1, 2, 3, 4)]
    assert waits == [
        f"mark {ends[0]}",
        f"mark {ends[1]}",
        f"finish {ends[0]}",
        f"mark {ends[2]}",
        f"finish {ends[1]}",
        f"mark {ends[3]}",
    ]
    assert len(streams.allocated) == 2


def test_pinned_memory_grows_with_the_largest_sample_and_is_let_go_at_the_end() -> None:
    streams = Pretended()
    delivery = Delivery(streams)
    for rows in (2, 2, 200, 200, 3, 3):
        delivery.receive(delivery.send(lambda rows=rows: sample(1, rows)))
    assert len(streams.allocated) == 4
    sent = delivery.send(lambda: sample(5))
    delivery.close()
    assert f"finish {sent.event}" in streams.log
    assert same(sent.batch, sample(5))


def test_the_consumers_stream_waits_and_is_lent_every_tensor() -> None:
    streams = Pretended()
    delivery = Delivery(streams)
    sent = delivery.send(lambda: sample(3))
    assert streams.lent == []
    batch = delivery.receive(sent)
    assert streams.log[-1] == f"follow {sent.event}"
    assert {id(tensor) for tensor in streams.lent} == {id(tensor) for tensor in tensors(batch)}


def test_what_the_table_has_brought_to_the_device_is_not_staged_again() -> None:
    streams = Pretended()
    delivery = Delivery(streams)

    def on_the_device() -> SampleResult:
        return SampleResult({"obs": streams.send(torch.arange(6.0)), "rest": torch.arange(3)})

    sent = delivery.send(on_the_device)
    assert streams.log == ["send", "send", "mark 2"]
    batch = delivery.receive(sent)
    assert batch["obs"].tolist() == list(range(6)) and batch["rest"].tolist() == [0, 1, 2]


def test_a_failed_sample_leaves_the_ring_usable() -> None:
    streams = Pretended()
    delivery = Delivery(streams)

    def fails() -> SampleResult:
        raise MemoryError("none on the device")

    for number in range(6):
        with pytest.raises(MemoryError):
            delivery.send(fails)
        assert same(delivery.receive(delivery.send(lambda n=number: sample(n))), sample(number))


def test_copies_begun_before_an_error_keep_their_slot() -> None:
    class Failing(Pretended):
        def send(self, tensor: Tensor) -> Tensor:
            if self.log.count("send") == 2:
                self.log.append("send")
                raise MemoryError("none on the device")
            return super().send(tensor)

    streams = Failing()
    delivery = Delivery(streams)
    with pytest.raises(MemoryError):
        delivery.send(lambda: sample(1))
    delivery.send(lambda: sample(2))
    delivery.send(lambda: sample(3))
    assert "finish 2" in streams.log  # before the slot of the failed one was filled again


# -- in a loader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_loader_delivers_whole_batches(
    make_table, pretended: list[Pretended], prefetch: int
) -> None:
    table = make_table(sampler=PrioritizedSampleStrategy())
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 10))
    loader = MemoryLoader(table, 16, 4, "n", batches=30, prefetch=prefetch, device="cuda")
    kept = []
    for batch in loader:
        data = batch["default"]
        assert torn_windows(data, 4) == []
        assert data["n"] == 64
        assert table.update_priorities(data.points, data.weights) == 16
        kept.append(data)
    (streams,) = pretended
    assert len(kept) == 30
    for data in kept:  # nothing that came later has touched them
        assert torn_windows(data, 4) == []
        assert data["obs"][::4, 0].tolist() == data.points.identities.tolist()
    assert prefetchers() == []
    assert len(streams.lent) == 30 * 6  # five columns and the weights


def test_a_loader_lets_pinned_memory_go_on_a_break(make_table, pretended: list[Pretended]) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 50))
    for _ in MemoryLoader(table, 2, 2, "n", prefetch=2, device="cuda"):
        break
    (streams,) = pretended
    ends = [entry.split()[1] for entry in streams.log if entry.startswith("mark")][-2:]
    assert {f"finish {end}" for end in ends} <= set(streams.log)


def test_joint_samples_are_delivered_with_their_sources(
    make_table, pretended: list[Pretended]
) -> None:
    tables = [make_table(), make_table()]
    for table in tables:
        table.add_sequence(1, small_sequence(1, 50))
    joint: Any = JointTable([(0.5, table) for table in tables])
    iterator = iter(MemoryLoader(joint, 4, 2, "n", prefetch=1, device="cuda"))
    (batch,) = itertools.islice(iterator, 1)
    iterator.close()
    assert pretended[0].has(batch["default"].sources)
    assert batch["default"].sources.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("adaptors", [0, 1])
def test_a_loader_gathers_right_to_pinned_memory_unless_others_see_it(
    make_table, pretended: list[Pretended], monkeypatch: pytest.MonkeyPatch, adaptors: int
) -> None:
    monkeypatch.setattr(shmtable.columns.storage, "_ALONE_BYTES", 0)
    table = make_table(adaptors=[lambda result, *_: result] * adaptors)
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 10))
    took = []
    original = Slot.take

    def take(slot: Slot, size: int) -> Any:
        found = original(slot, size)
        took.append(found is not None)
        return found

    monkeypatch.setattr(Slot, "take", take)
    kept = [
        batch["default"]
        for batch in MemoryLoader(table, 16, 4, "n", batches=12, prefetch=2, device="cuda")
    ]
    for data in kept:
        assert torn_windows(data, 4) == []
        assert all(pretended[0].has(tensor) for name, tensor in data.items() if name != "n")
    assert took == [] if adaptors else all(took[-12:])
