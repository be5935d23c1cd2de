"""What is asked of CUDA, and in which order; on a pretended one that only writes it down."""

from __future__ import annotations

import gc
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shmtable import streams
from shmtable.columns import backend as module
from shmtable.columns.backend import CudaBackend, CudaHandle
from shmtable.errors import DeviceMemoryError, SharedMemoryError


class Stream:
    """A stream by its name."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def synchronize(self) -> None:
        self.log.append(f"wait for {self.name}")

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} after {other.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One device, its memory the CPU's; tensors on it are told by nothing."""
    log: list[str] = []
    caller = Stream(log, "caller")
    real = torch.empty

    @contextmanager
    def current(stream: Stream) -> Iterator[None]:
        log.append(f"on {stream.name}")
        yield
        log.append("off")

    def empty(size: int, *, dtype: torch.dtype, device: Any, pin_memory: bool = False) -> Any:
        log.append(f"{'pinned' if pin_memory else 'empty'} {torch.device(device).type}")
        return real(size, dtype=dtype)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: caller)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(log, "own"))
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 100))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties(["GPU-a"]))
    monkeypatch.setattr(streams, "_idle", {})
    monkeypatch.setattr(torch, "empty", empty)
    return log


def properties(uuids: list[str]) -> Any:
    return lambda index: SimpleNamespace(uuid=uuids[index])


class Result:
    """Stands for a tensor on the device."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record_stream(self, stream: Stream) -> None:
        self.log.append(f"used on {stream.name}")


def test_memory_is_nobody_elses_when_it_is_handed_out(log: list[str]) -> None:
    assert len(CudaBackend(0).allocate(64)) == 64
    # What the caller's stream still does with memory that it has given back comes first.
    assert log == ["empty cuda", "wait for caller"]


def test_work_is_complete_and_its_results_belong_to_the_caller(log: list[str]) -> None:
    with CudaBackend(0).working() as results:
        log.append("work")
        results.append(Result(log))
    assert log == ["on own", "work", "wait for own", "off", "used on caller"]


def test_what_the_caller_has_begun_may_come_first(log: list[str]) -> None:
    with CudaBackend(0).working(after_caller=True):
        log.append("work")
    assert log == ["own after caller", "on own", "work", "wait for own", "off"]


def test_an_error_leaves_nothing_under_way(log: list[str]) -> None:
    with pytest.raises(KeyError), CudaBackend(0).working():
        raise KeyError
    assert log == ["on own", "wait for own"]


def test_no_memory_is_said_in_words(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CudaBackend(0)

    def refuse(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to")

    with pytest.raises(SharedMemoryError, match="cuda:0 has no room for a copy of rows: 7 of its"):
        with backend.working():
            refuse()
    assert log == ["on own", "wait for own"]
    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(
        SharedMemoryError, match=r"for 64 bytes: 7 of its 100 .*\(CUDA out"
    ) as error:
        backend.allocate(64)
    assert (error.value.asked_bytes, error.value.free_bytes) == (64, 7)


def test_threads_have_a_stream_each_and_keep_it(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Stream] = []

    def make(device: Any) -> Stream:
        made.append(Stream(log, f"own {len(made)}"))
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Stream", make)
    backend = CudaBackend(0)
    for _ in range(3):
        backend.settle()
    thread = threading.Thread(target=backend.settle)
    thread.start()
    thread.join()
    assert log == ["wait for own 0"] * 3 + ["wait for own 1"]


def test_staging_is_pinned_memory_of_the_cpu_whatever_the_default_device(log: list[str]) -> None:
    with torch.device("meta"):
        CudaBackend(0).staging(8)
    assert log == ["pinned cpu"]


class Targets(TorchDispatchMode):
    """Notes what rows are copied to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index_copy_.default:
            self.found.append(args[0])
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[False, True], ids=["as it likes", "deterministic"])
def _in_either_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_in_either_mode")
def test_only_the_rows_meant_are_written(log: list[str]) -> None:
    memory = torch.zeros(60, dtype=torch.int32)
    rows = memory.as_strided((11, 3), (5, 1), 2)
    index, values = torch.tensor([7, 0, 10]), torch.arange(1, 10, dtype=torch.int32).view(3, 3)
    with Targets() as targets:
        CudaBackend(0).scatter(rows, index, values)
    wanted = torch.zeros(12, 5, dtype=torch.int32)
    wanted[index, 2:] = values
    assert torch.equal(memory, wanted.view(-1))
    if torch.are_deterministic_algorithms_enabled():
        # To others torch copies in this mode whatever lies between: rows that others write.
        assert [target.is_contiguous() for target in targets.found] == [True]
    several = torch.zeros(4, 2, 3, dtype=torch.int32).transpose(1, 2)
    CudaBackend(0).scatter(several, torch.tensor([2]), torch.ones(1, 3, 2, dtype=torch.int32))
    assert several.sum((1, 2)).tolist() == [0, 0, 6, 0]


def test_memory_that_cannot_be_handed_on_is_said_in_words(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(memory: Any) -> None:
        raise RuntimeError("expandable segments are not shareable\nmore")

    monkeypatch.setattr(module._reductions, "reduce_tensor", refuse)
    with pytest.raises(DeviceMemoryError, match="not shareable.*PYTORCH_CUDA_ALLOC_CONF .* asks"):
        CudaBackend(0).export(torch.zeros(4))


def test_a_stream_of_an_ended_thread_is_used_again(log: list[str]) -> None:
    backend = CudaBackend(0)
    for _ in range(3):
        thread = threading.Thread(target=backend.settle)
        thread.start()
        thread.join()
    gc.collect()
    assert len(streams._idle[backend.device]) == 1


def test_nothing_is_begun_while_a_graph_is_captured(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(DeviceMemoryError, match="cuda:0: a CUDA graph is being captured"):
        with CudaBackend(0).working():
            log.append("work")
    assert log == []


def test_no_pinned_memory_is_said_in_words(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "empty", refuse)
    text = "CUDA error: out of memory\nCompile with"
    with pytest.raises(SharedMemoryError, match=r"pins no 64 bytes more.*\(CUDA error: out of m"):
        CudaBackend(0).staging(64)
    text = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal"):
        CudaBackend(0).staging(64)


class Memory:
    """What torch's handles are of: it only notes who has let go.

    Attributes:
        released: counters, and places in them.
    """

    released: list[tuple[Any, ...]]

    @classmethod
    def _release_ipc_counter(cls, counter: bytes, offset: int, device: int) -> None:
        cls.released.append((counter, offset, device))


@pytest.fixture
def arguments() -> tuple[Any, ...]:
    """As ``torch.multiprocessing.reductions.rebuild_cuda_tensor`` names them."""
    Memory.released = []
    values = dict.fromkeys(inspect.signature(module._reductions.rebuild_cuda_tensor).parameters)
    values.update(
        storage_cls=Memory, storage_device=2, ref_counter_handle=b"file", ref_counter_offset=9
    )
    return tuple(values.values())


@pytest.mark.parametrize("uuid", ["", "GPU-b"])
def test_a_process_that_does_not_see_the_device_is_told(
    log: list[str], arguments: tuple[Any, ...], uuid: str
) -> None:
    with pytest.raises(DeviceMemoryError, match=f"on cuda:2 ?{uuid}, which is none of the 1 dev"):
        CudaHandle(2, arguments, uuid).attach()
    assert Memory.released == [(b"file", 9, 2)]


@pytest.mark.parametrize(("uuid", "found"), [("", 2), ("GPU-a", 0), ("GPU-c", 2)])
def test_a_device_is_found_whatever_its_number(
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[Any, ...],
    uuid: str,
    found: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    uuids = ["GPU-a", "GPU-b", "GPU-c", "GPU-c"]
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties(uuids))
    asked: dict[str, Any] = {}
    original = inspect.signature(module._reductions.rebuild_cuda_tensor)

    def rebuild(*given: Any) -> str:
        asked.update(original.bind(*given).arguments)
        return "memory"

    monkeypatch.setattr(module._reductions, "rebuild_cuda_tensor", rebuild)
    backend, memory = CudaHandle(2, arguments, uuid).attach()
    assert (memory, backend.device.index, asked["storage_device"]) == ("memory", found, found)
    assert asked["ref_counter_offset"] == 9 and Memory.released == []


def test_memory_of_an_ended_process_is_said_in_words(
    log: list[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...]
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("CUDA error: invalid device context\nmore")

    monkeypatch.setattr(module._reductions, "rebuild_cuda_tensor", refuse)
    with pytest.raises(DeviceMemoryError, match=r"invalid device context\); the process that made"):
        CudaHandle(0, arguments).attach()
    assert Memory.released == [(b"file", 9, 2)]


def test_a_handle_that_is_not_needed_is_counted_off(arguments: tuple[Any, ...]) -> None:
    CudaHandle(2, arguments).drop()
    assert Memory.released == [(b"file", 9, 2)]
