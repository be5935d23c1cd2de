"""Wrappers: what they forward, what they refuse; logging, and exporting."""

from __future__ import annotations

import copy
import itertools
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    LoggingProxyWrapper,
    MemoryExporterProxyWrapper,
    MemoryProxyWrapper,
    MemoryTableProxy,
    MemoryTableProxyWrapper,
    SpecError,
)
from tests.proxies.steps import INITIAL, TERMINAL, columns, observation, play, response


class Inner:
    """Everything that can be asked for."""

    constant = 3

    def __init__(self) -> None:
        self.attribute = "mine"
        self.nothing = None
        self.function = lambda: "mine"

    def method(self) -> str:
        return "method"

    @property
    def readable(self) -> str:
        return "property"

    @cached_property
    def cached(self) -> str:
        return "cached"

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__


class Another(MemoryProxyWrapper):
    """With a method, a property and an attribute of its own."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.own = "of the wrapper"

    def method(self) -> str:
        return f"wrapped {self._inner.method()}"

    @property
    def other(self) -> int:
        return 7


def test_methods_and_properties_are_forwarded_through_any_number_of_wrappers() -> None:
    inner = Inner()
    another = Another(inner)
    wrapper = MemoryProxyWrapper(MemoryProxyWrapper(another))
    assert wrapper.method == another.method
    assert wrapper.method() == "wrapped method"
    assert wrapper.readable == "property"
    assert wrapper.other == 7
    assert (wrapper.static(), wrapper.of_class()) == ("static", "Inner")
    assert MemoryProxyWrapper(inner).cached == "cached"


@pytest.mark.parametrize("name", ["attribute", "nothing", "function", "constant", "own"])
def test_plain_attributes_are_refused(name: str) -> None:
    wrapper = MemoryProxyWrapper(Another(Inner()))
    with pytest.raises(AttributeError, match=f"'{name}' is a plain attribute of .*; ask the one"):
        getattr(wrapper, name)


def test_what_nobody_has_is_told_as_usual() -> None:
    wrapper = MemoryProxyWrapper(Another(Inner()))
    assert not hasattr(wrapper, "missing")
    with pytest.raises(AttributeError, match="'Inner' object has no attribute 'missing'"):
        _ = wrapper.missing


def test_wrappers_can_be_copied() -> None:
    wrapper = MemoryProxyWrapper(Another(3))
    assert copy.copy(wrapper)._inner is wrapper._inner
    assert pickle.loads(pickle.dumps(wrapper)).other == 7


def test_a_table_proxy_is_wrapped_whole(make_table, tmp_path: Path) -> None:
    table = make_table(columns=columns())
    wrapper = MemoryTableProxyWrapper(inner=MemoryTableProxy(table, name="replay"))
    play(wrapper, 1, 3)
    assert (wrapper.size(), wrapper.name, wrapper.is_initial(1)) == (3, "replay", True)
    assert wrapper.store(tmp_path / "t")
    assert (tmp_path / "t.zip").exists()
    with pytest.raises(AttributeError):
        _ = wrapper._table
    with pytest.raises(TypeError):
        MemoryTableProxyWrapper(MemoryTableProxy(table))  # type: ignore[call-arg,misc]


def test_wrappers_take_other_base_classes() -> None:
    class Mixin:
        def __init__(self, *, colour: str) -> None:
            self.colour = colour

    class Both(MemoryTableProxyWrapper, Mixin):
        """Has two."""

    inner: Any = Inner()
    assert Both(inner=inner, colour="red").colour == "red"


# -- logging -------------------------------------------------------------------------------------


class Writer:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[float, int]]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(tag, []).append((value, step))


class FullWriter(Writer):
    """With histograms, too."""

    def __init__(self) -> None:
        super().__init__()
        self.histograms: dict[str, list[Any]] = {}
        self.flushes = 0

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        self.histograms.setdefault(tag, []).append((np.asarray(values).tolist(), step))

    def flush(self) -> None:
        self.flushes += 1


def logged(make_table: Any, writer: Any, **options: Any) -> LoggingProxyWrapper:
    proxy = MemoryTableProxy(make_table(columns=columns()))
    clock = itertools.count(0.0, 2.0)  # every look is two seconds later
    return LoggingProxyWrapper(proxy, writer, 2, clock=clock.__next__, **options)


def test_curves_of_what_happened(make_table) -> None:
    writer = Writer()
    proxy = logged(make_table, writer)
    play(proxy, 1, 5)  # six calls
    assert (proxy.completed_inferences, proxy.completed_episodes) == (6, 1)
    assert proxy.size() == 5
    assert writer.scalars == {
        "training/inf_per_sec": [(1.0, 2), (1.0, 4), (1.0, 6)],
        "performance/inf_steps_per_sec": [(1.0, 2), (1.0, 4), (1.0, 6)],
        "episode/completed": [(0, 2), (0, 4), (1, 6)],
        "memory/memproxy/size": [(0, 2), (0, 4), (5, 6)],
    }


def test_numbers_of_metadata_are_averaged_and_summed(make_table) -> None:
    writer = FullWriter()
    proxy = logged(make_table, writer, window=3)
    for step in range(4):
        info = {"episode/reward": float(step), "windowed[2]:loss": float(step)}
        proxy.add({step: observation(step, 0, INITIAL, info)}, {step: response(step, 0)})
    assert writer.scalars["episode/reward"] == [(0.5, 2), (2.0, 4)]  # of 0, 1; of 1, 2, 3
    assert writer.scalars["episode/reward/cumulative"] == [(1.0, 2), (6.0, 4)]
    assert writer.scalars["loss"] == [(0.5, 2), (2.5, 4)]
    assert writer.scalars["env_vs_episode/reward"] == [(0.5, 0), (2.0, 0)]
    assert writer.histograms == {"episode/reward_distribution": [([0, 1], 2), ([1, 2, 3], 4)]}
    assert writer.flushes == 2


def test_reports(make_table) -> None:
    proxy = logged(make_table, FullWriter())
    proxy.report({"one": 1}, {"three": [3, 3], "histogram:ones": [1, 1, 1]})
    for _ in range(2):
        proxy.report({"histogram:twos": torch.tensor(2)}, {})
        proxy.report({"one": np.float32(1)}, {"three": torch.tensor([0.0])})
    assert list(proxy.hist_logs["twos"]) == [2, 2]
    assert proxy.windowed_scalar_cumulative == {"one": 3, "three": 6}
    values, lists = proxy.get_report(["histogram:ones", "one", "three", "unknown", "histogram:no"])
    assert values == {
        "histogram:ones": 1,
        "one": 1,
        "one/cumulative": 3,
        "three": 1.5,
        "three/cumulative": 6,
    }
    assert lists == {"one": [1, 1, 1], "three": [3, 3, 0, 0]}


def test_numbers_of_its_own_and_histograms_are_written(make_table) -> None:
    writer = FullWriter()
    proxy = logged(make_table, writer)
    proxy.log_scalar("version", 3)
    proxy.log_histogram("lengths", [1, 2])
    play(proxy, 1, 1)
    assert writer.scalars["version"] == [(3.0, 2)]
    assert writer.histograms["lengths"] == [([1, 2], 2)]


def test_counts_go_on_from_a_checkpoint(make_table) -> None:
    proxy, writer = logged(make_table, Writer()), Writer()
    play(proxy, 1, 9)
    again = logged(make_table, writer)
    again.load_state_dict(proxy.state_dict())
    assert (again.completed_inferences, again.completed_episodes) == (10, 1)
    play(again, 2, 1)
    assert writer.scalars["training/inf_per_sec"] == [(1.0, 12)]  # not counting those before
    assert writer.scalars["performance/inf_steps_per_sec"] == [(1.0, 12)]


def test_a_refused_step_is_not_logged(make_table) -> None:
    proxy = logged(make_table, Writer())
    with pytest.raises(ValueError, match="no response"):
        proxy.add({1: observation(1, 0, INITIAL, {"x": 1.0})}, {})
    assert (proxy.completed_inferences, proxy.windowed_scalar) == (0, {})


def test_what_cannot_be_logged(make_table) -> None:
    proxy = MemoryTableProxy(make_table(columns=columns()))
    with pytest.raises(SpecError, match="log_interval is 0"):
        LoggingProxyWrapper(proxy, Writer(), 0)
    with pytest.raises(SpecError, match="window is 0"):
        LoggingProxyWrapper(proxy, Writer(), 1, window=0)


# -- exporting -----------------------------------------------------------------------------------


class Clock:
    """Tells the time it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def exported(make_table: Any, folder: Path, clock: Clock) -> Any:
    proxy = MemoryTableProxy(make_table(columns=columns()))
    return MemoryExporterProxyWrapper(
        memory=proxy,
        target_memory_name="replay",
        inf_steps_per_memory_export=4,
        experiment_root_path=folder,
        min_time_per_export=60,
        clock=clock,
    )


def test_it_exports_after_enough_steps_and_enough_time(make_table, tmp_path: Path) -> None:
    clock = Clock()
    proxy = exported(make_table, tmp_path, clock)
    play(proxy, 1, 9)
    assert proxy.exported == 0  # enough steps, too early
    clock.now = 60
    proxy.add({2: observation(2, 0, INITIAL)}, {2: response(2, 0)})
    assert proxy.exported == 1
    clock.now = 120
    for step, state in ((1, TERMINAL), (2, TERMINAL), (3, TERMINAL)):
        proxy.add({2: observation(2, step, state)}, {})
        assert proxy.exported == 1  # late enough, too few steps
    proxy.add({}, {})
    assert proxy.exported == 2
    with make_table(columns=columns()) as other:
        other.restore(tmp_path / "replay_export")
        assert other.identities().tolist() == [1, 2]


def test_a_failed_export_is_told_and_tried_again_at_its_time(make_table, tmp_path: Path) -> None:
    clock, folder = Clock(), tmp_path / "later"
    proxy = exported(make_table, folder, clock)
    clock.now = 60
    with pytest.warns(RuntimeWarning, match=r"could not be exported to .*replay_export.zip \(.*No"):
        play(proxy, 1, 3)
    assert isinstance(proxy.error, FileNotFoundError)
    folder.mkdir()
    play(proxy, 2, 5)
    assert proxy.exported == 0
    clock.now = 120
    proxy.add({}, {})
    assert (proxy.exported, proxy.error) == (1, None)


def test_wrappers_stand_before_each_other(make_table, tmp_path: Path) -> None:
    writer, clock = Writer(), Clock()
    proxy = LoggingProxyWrapper(exported(make_table, tmp_path, clock), writer, 1)
    clock.now = 60
    play(proxy, 1, 3)
    assert (tmp_path / "replay_export.zip").exists()
    assert writer.scalars["memory/memproxy/size"][-1] == (3, 4)


def test_what_cannot_be_exported(make_table) -> None:
    with pytest.raises(SpecError, match="inf_steps_per_memory_export is 0"):
        MemoryExporterProxyWrapper(MemoryTableProxy(make_table(columns=columns())), "t", 0, ".")
