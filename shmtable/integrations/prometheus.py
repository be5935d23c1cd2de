"""Tables as Prometheus sees them: a collector for ``prometheus_client``, or the plain text.

Each metric has the label ``table``; those of single processes have ``pid`` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from shmtable.errors import MissingExtraError, ShmTableError
from shmtable.held import HeldTable
from shmtable.onlooker import Onlooker
from shmtable.types import Stats

__all__ = ["TableCollector", "exposition"]

Tables = Mapping[str, HeldTable | Onlooker]
_Labels = tuple[tuple[str, str], ...]


class _Metric(NamedTuple):
    """One metric: ``kind`` is "gauge" or "counter"; a counter's name ends in ``_total``."""

    name: str
    kind: str
    help: str
    samples: list[tuple[_Labels, float]]


# Name, kind, what it is, and the attribute of Stats.
_OF_TABLES = (
    ("transitions", "gauge", "Live transitions", "transitions"),
    ("maxlen", "gauge", "Most transitions the table holds", "maxlen"),
    ("sequences", "gauge", "Live sequences", "sequences"),
    ("fill_ratio", "gauge", "Share of maxlen in use", "fill"),
    ("writing_transitions", "gauge", "Transitions being written", "writing_transitions"),
    ("oldest_age_transitions", "gauge", "Added since the oldest", "oldest_age_transitions"),
    ("memory_bytes", "gauge", "Memory taken from the system", "bytes_reserved"),
    ("transitions_added_total", "counter", "Transitions added", "transitions_added"),
    ("sequences_added_total", "counter", "Sequences added", "sequences_added"),
    ("transitions_removed_total", "counter", "Transitions that left", "transitions_removed"),
    ("sequences_removed_total", "counter", "Sequences that left", "sequences_removed"),
    ("transitions_sampled_total", "counter", "Transitions handed out", "transitions_sampled"),
    ("windows_sampled_total", "counter", "Windows handed out", "windows_sampled"),
    ("adds_waited_seconds_total", "counter", "What adds have waited", "adds_waited_s"),
    ("samples_waited_seconds_total", "counter", "What samples have waited", "samples_waited_s"),
    ("lock_waits_total", "counter", "Calls that found a lock taken", "lock_waits"),
    ("lock_waited_seconds_total", "counter", "What those have waited", "lock_waited_s"),
    ("recoveries_total", "counter", "Repairs after processes that died", "recoveries"),
)


class TableCollector:
    """Give it to ``REGISTRY.register``; every scrape looks at the tables anew.

    Args:
        tables: by the name they are to have, tables that this process has open or ``Onlooker``
            objects.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(self, tables: Tables) -> None:
        try:
            self._core: Any = import_module("prometheus_client.core")
        except ImportError as error:
            raise MissingExtraError(
                "TableCollector needs prometheus_client, not installed here; install the extra "
                "that brings it: pip install 'shmtable[watch]', or serve exposition(tables)",
                packages=["prometheus_client"],
                extra="watch",
            ) from error
        self._tables = dict(tables)

    def collect(self) -> Iterator[Any]:
        """The metrics, as ``prometheus_client`` wants them.

        A table that cannot be read has ``shmtable_up`` 0 and nothing else.
        """
        kinds = {
            "gauge": self._core.GaugeMetricFamily,
            "counter": self._core.CounterMetricFamily,
        }
        for metric in _metrics(self._tables):
            labels = [name for name, _ in metric.samples[0][0]] if metric.samples else ["table"]
            family = kinds[metric.kind](metric.name, metric.help, labels=labels)
            for found, value in metric.samples:
                family.add_metric([text for _, text in found], value)
            yield family


def exposition(tables: Tables) -> str:
    """All metrics in Prometheus' text format, version 0.0.4; needs no package.

    Serve it as ``text/plain; version=0.0.4``, or write it where the node exporter's textfile
    collector looks. A table that cannot be read has ``shmtable_up`` 0 and nothing else.

    Args:
        tables: by the name they are to have, tables that this process has open or ``Onlooker``
            objects.

    Returns:
        The text, each line with its end.
    """
    lines = []
    for metric in _metrics(tables):
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.samples:
            text = ",".join(f'{name}="{_escaped(given)}"' for name, given in labels)
            lines.append(f"{metric.name}{{{text}}} {float(value)!r}")
    return "".join(f"{line}\n" for line in lines)


def _metrics(tables: Tables) -> Iterator[_Metric]:
    found: dict[str, Stats] = {}
    up = _Metric("shmtable_up", "gauge", "Whether the table could be read", [])
    for name, table in tables.items():
        try:
            found[name] = table.stats()
        except (ShmTableError, OSError):
            up.samples.append(((("table", name),), 0))
        else:
            up.samples.append(((("table", name),), 1))
    yield up
    for short, kind, text, attribute in _OF_TABLES:
        samples: list[tuple[_Labels, float]] = [
            ((("table", name),), getattr(stats, attribute)) for name, stats in found.items()
        ]
        yield _Metric(f"shmtable_{short}", kind, text, samples)
    yield from _process_metrics(found)


def _process_metrics(found: dict[str, Stats]) -> Iterator[_Metric]:
    added = _Metric("shmtable_process_transitions_added_total", "counter", "Added by a process", [])
    alive = _Metric("shmtable_process_alive", "gauge", "0 once the system says it has ended", [])
    ages = _Metric("shmtable_process_added_age_seconds", "gauge", "Since it last added", [])
    for name, stats in found.items():
        for process in stats.processes:
            labels = (("table", name), ("pid", str(process.pid)))
            added.samples.append((labels, process.transitions_added))
            alive.samples.append((labels, process.alive is not False))
            if process.added_s_ago is not None:
                ages.samples.append((labels, process.added_s_ago))
    yield from (added, alive, ages)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
