"""Around a proxy: something that happens beside, with every step."""

from __future__ import annotations

import inspect
import os
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from shmtable.errors import ShmTableError
from shmtable.protocols.arguments import at_least_one
from shmtable.proxies import MemoryTableProxy, Observations, Responses, has_ended

_HISTOGRAM = "histogram:"
_WINDOWED = re.compile(r"windowed\[(\d+)\]:(.+)")
_REWARD = "episode/reward"
_ABSENT = object()
_FORWARDED = (property, cached_property, staticmethod, classmethod)


class MemoryProxyWrapper:
    """A proxy that stands before another one, or before another wrapper.

    What it does not have itself, it forwards: methods and properties. Plain attributes it refuses,
    as whoever set one here would not have set that of the other.

    Args:
        inner: what it stands before.
        **kwargs: for the other base classes of a subclass.
    """

    def __init__(self, inner: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling ask for these before there is an inner one.
        if name == "_inner" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name, name=name, obj=self)
        inner = self._inner
        found = inspect.getattr_static(inner, name, _ABSENT)
        of_class = inspect.getattr_static(type(inner), name, _ABSENT)
        # Not found, yet perhaps there: another wrapper forwards it.
        if found is of_class and (
            found is _ABSENT or inspect.isroutine(found) or isinstance(found, _FORWARDED)
        ):
            return getattr(inner, name)
        raise AttributeError(
            f"'{name}' is a plain attribute of {type(inner).__name__}, and wrappers forward "
            "methods and properties only; ask the one it belongs to",
            name=name,
            obj=self,
        )


class MemoryTableProxyWrapper(MemoryProxyWrapper):
    """A wrapper before a proxy of a table.

    Args:
        inner: a :class:`MemoryTableProxy`, or another wrapper before one.
        **kwargs: for the other base classes of a subclass.
    """

    def __init__(self, *, inner: MemoryTableProxy | MemoryTableProxyWrapper, **kwargs: Any) -> None:
        super().__init__(inner=inner, **kwargs)

    def store(self, path: str | os.PathLike[str]) -> bool:
        """Write the table to the file ``path + ".zip"``."""
        return bool(self._inner.store(path))


class LoggingProxyWrapper(MemoryTableProxyWrapper):
    """Writes how acting goes, and what the observations' metadata say, to TensorBoard.

    Numbers of ``metadata`` are averaged over the latest ``window`` of them, or over so many as
    their name says (``"windowed[100]:episode/reward"``); those named ``"histogram:..."`` become
    histograms, where the writer can. The steps of the curves are observations; those under
    ``env_vs_episode`` are episodes.

    Args:
        inner: the proxy.
        writer: a ``SummaryWriter``, or anything with ``add_scalar(tag, value, step)``;
            ``add_histogram`` and ``flush`` are used where there are any.
        log_interval: write with every so manieth call of ``add``.
        window: numbers kept for each average.
        clock: tells seconds.

    Attributes:
        completed_inferences: observations so far.
        completed_episodes: those of them that ended an episode.
        scalar_logs: the latest single numbers, by name.
        windowed_scalar: the latest numbers of each average, by name.
        windowed_scalar_cumulative: the sums of all of them.
        hist_logs: the latest numbers of each histogram, by name.

    Raises:
        SpecError: ``log_interval`` or ``window`` below 1.
    """

    def __init__(
        self,
        inner: MemoryTableProxy | MemoryTableProxyWrapper,
        writer: Any,
        log_interval: int,
        *,
        window: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner=inner)
        self.completed_inferences = 0
        self.completed_episodes = 0
        self.scalar_logs: dict[str, float] = {}
        self.windowed_scalar: dict[str, deque[float]] = {}
        self.windowed_scalar_cumulative: dict[str, float] = {}
        self.hist_logs: dict[str, deque[float]] = {}
        self._writer = writer
        self._log_interval = at_least_one("log_interval", log_interval)
        self._window = at_least_one("window", window)
        self._calls = 0
        self._clock = clock
        self._began_s = self._cycle_began_s = clock()
        self._before = self._before_cycle = 0  # observations before this object, and before a cycle

    def add(self, observations: Observations, responses: Responses) -> None:
        """Have the inner proxy take a step, and log it."""
        self._inner.add(observations, responses)
        self.completed_inferences += len(observations)
        for agent, observation in observations.items():
            self.completed_episodes += has_ended(agent, observation)
            metadata = getattr(observation, "metadata", None)
            if metadata is not None:
                self.report(metadata.info, metadata.info_lists)
        self._calls += 1
        if self._calls % self._log_interval == 0:
            self._write()

    def report(
        self, metrics: Mapping[str, Any], metrics_lists: Mapping[str, Iterable[Any]]
    ) -> None:
        """Take in numbers, as those of an observation's metadata.

        Args:
            metrics: single ones by name.
            metrics_lists: several by name.
        """
        for name, value in (*metrics.items(), *metrics_lists.items()):
            if name.startswith(_HISTOGRAM):
                self.log_histogram(name.removeprefix(_HISTOGRAM), value)
            else:
                self.log_windowed_scalar(name, value)

    def get_report(self, keys: Sequence[str]) -> tuple[dict[str, float], dict[str, list[float]]]:
        """What is known now of some names; those that nobody has reported are left out.

        Returns:
            Averages and, as ``name + "/cumulative"``, sums; and the numbers averaged over.
        """
        values: dict[str, float] = {}
        lists: dict[str, list[float]] = {}
        for key in keys:
            name = key.removeprefix(_HISTOGRAM)
            if name != key:
                if name in self.hist_logs:
                    values[key] = _mean(self.hist_logs[name])
            elif name in self.windowed_scalar:
                values[name] = _mean(self.windowed_scalar[name])
                values[f"{name}/cumulative"] = self.windowed_scalar_cumulative[name]
                lists[name] = list(self.windowed_scalar[name])
        return values, lists

    def log_scalar(self, name: str, value: Any) -> None:
        """Log a number of which only the latest counts."""
        self.scalar_logs[name] = float(value)

    def log_windowed_scalar(self, name: str, value: Any) -> None:
        """Log one number, or several, for an average."""
        length = self._window
        if named := _WINDOWED.fullmatch(name):
            length, name = int(named[1]), named[2]
        numbers = _numbers(value)
        self.windowed_scalar.setdefault(name, deque(maxlen=length)).extend(numbers)
        sums = self.windowed_scalar_cumulative
        sums[name] = sums.get(name, 0.0) + sum(numbers)

    def log_histogram(self, name: str, value: Any) -> None:
        """Log one number, or several, for a histogram."""
        self.hist_logs.setdefault(name, deque(maxlen=self._window)).extend(_numbers(value))

    def state_dict(self) -> dict[str, Any]:
        """The counts, for a checkpoint."""
        return {
            "completed_inferences": self.completed_inferences,
            "completed_episodes": self.completed_episodes,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Count on from a checkpoint."""
        self.completed_inferences = state_dict["completed_inferences"]
        self.completed_episodes = state_dict["completed_episodes"]
        self._before = self._before_cycle = self.completed_inferences
        self._began_s = self._cycle_began_s = self._clock()

    def _write(self) -> None:
        now_s, step, episodes = self._clock(), self.completed_inferences, self.completed_episodes
        rate = _rate(step - self._before_cycle, now_s - self._cycle_began_s)
        self.log_scalar("training/inf_per_sec", rate)
        self.log_scalar("episode/completed", episodes)
        self.log_scalar(f"memory/{self.name}/size", self.size())
        self._before_cycle, self._cycle_began_s = step, now_s
        add = self._writer.add_scalar
        for name, value in self.scalar_logs.items():
            add(name, value, step)
        for name, window in self.windowed_scalar.items():
            add(name, _mean(window), step)
            add(f"{name}/cumulative", self.windowed_scalar_cumulative[name], step)
        add(
            "performance/inf_steps_per_sec", _rate(step - self._before, now_s - self._began_s), step
        )
        rewards = self.windowed_scalar.get(_REWARD)
        if rewards:
            add(f"env_vs_{_REWARD}", _mean(rewards), episodes)
        add_histogram = getattr(self._writer, "add_histogram", None)
        if add_histogram is not None:
            for name, numbers in self.hist_logs.items():
                add_histogram(name, np.array(numbers), step)
            if rewards:
                add_histogram(f"{_REWARD}_distribution", np.array(rewards), step)
        flush = getattr(self._writer, "flush", None)
        if flush is not None:
            flush()


class MemoryExporterProxyWrapper(MemoryTableProxyWrapper):
    """Stores the table now and then, to ``<target_memory_name>_export.zip`` in a folder.

    Storing happens within ``add``; others go on using the table meanwhile. To have a thread do it,
    use :class:`CheckpointEvery`. A failure keeps the file there was, is told by a warning and kept
    in ``error``, and the next attempt comes at its time.

    Args:
        memory: the proxy.
        target_memory_name: the first part of the file's name.
        inf_steps_per_memory_export: so many calls of ``add`` between two exports at least.
        experiment_root_path: the folder.
        min_time_per_export: seconds between two exports at least.
        clock: tells seconds.

    Attributes:
        exported: files written.
        error: of the last attempt, or None if it went well.

    Raises:
        SpecError: ``inf_steps_per_memory_export`` below 1.
    """

    def __init__(
        self,
        memory: MemoryTableProxy | MemoryTableProxyWrapper,
        target_memory_name: str,
        inf_steps_per_memory_export: int,
        experiment_root_path: str | os.PathLike[str],
        min_time_per_export: float = 600,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner=memory)
        self.exported = 0
        self.error: Exception | None = None
        self._path = os.path.join(experiment_root_path, f"{target_memory_name}_export")
        self._least_calls = at_least_one("inf_steps_per_memory_export", inf_steps_per_memory_export)
        self._least_s = min_time_per_export
        self._clock = clock
        self._calls = 0
        self._due_s = clock() + min_time_per_export

    def add(self, observations: Observations, responses: Responses) -> None:
        """Have the inner proxy take a step, and export when it is time."""
        self._inner.add(observations, responses)
        self._calls += 1
        if self._calls >= self._least_calls and self._clock() >= self._due_s:
            self._export()
            self._calls = 0
            self._due_s = self._clock() + self._least_s

    def _export(self) -> None:
        try:
            self.store(self._path)
        except (OSError, ShmTableError) as error:
            self.error = error
            warnings.warn(
                f"the table could not be exported to {self._path}.zip ({error}); the file there "
                "was, if any, is as before, and the next attempt comes at its time",
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            self.error = None
            self.exported += 1


def _numbers(value: Any) -> list[float]:
    """One number, or any number of them, in arrays or not."""
    if isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0:
        return [float(number) for number in value]
    return [float(value)]


def _mean(numbers: deque[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
