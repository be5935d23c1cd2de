"""Prometheus: the text we write ourselves, and what its client makes of the collector."""

from __future__ import annotations

import os
import re
import sys

import pytest

from shmtable import MissingExtraError
from shmtable.integrations.prometheus import TableCollector, exposition
from tests.cli.running import fill

_LINE = re.compile(r'(\w+)\{(\w+="(?:[^"\\]|\\.)*"(?:,\w+="(?:[^"\\]|\\.)*")*)\} (\S+)')


def test_the_text_says_what_the_table_says(make_table) -> None:
    table = make_table()
    fill(table)
    lines = exposition({"replay": table}).splitlines()
    found = {}
    for line in lines:
        if not line.startswith("# "):
            match = _LINE.fullmatch(line)
            assert match, line
            found[match[1], match[2]] = float(match[3])
    label = 'table="replay"'
    assert found["shmtable_up", label] == 1
    assert found["shmtable_transitions_added_total", label] == 100
    assert found["shmtable_transitions_sampled_total", label] == 40
    assert found["shmtable_fill_ratio", label] == 0.1
    pid = f'{label},pid="{os.getpid()}"'
    assert found["shmtable_process_transitions_added_total", pid] == 100
    assert found["shmtable_process_alive", pid] == 1
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) and {name for name, _ in found} <= set(names)


def test_a_table_that_cannot_be_read_is_down_and_the_others_are_told(make_table) -> None:
    gone, there = make_table(), make_table()
    gone.close()
    text = exposition({'a "name"\\': gone, "there": there})
    assert 'shmtable_up{table="a \\"name\\"\\\\"} 0.0\n' in text
    assert 'shmtable_up{table="there"} 1.0\n' in text
    assert text.count("a \\") == 1


def test_the_client_makes_the_same_of_it(make_table) -> None:
    client = pytest.importorskip("prometheus_client")
    parser = pytest.importorskip("prometheus_client.parser")
    table = make_table()
    fill(table)
    registry = client.CollectorRegistry()
    registry.register(TableCollector({"replay": table}))
    theirs = client.generate_latest(registry).decode()
    ours = exposition({"replay": table})

    def samples(text: str) -> dict:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
            if "_age_seconds" not in sample.name
        }

    assert samples(theirs) == samples(ours) and len(samples(ours)) > 15
    assert registry.get_sample_value("shmtable_transitions", {"table": "replay"}) == 100


def test_without_the_client_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'shmtable\[watch\]'"):
        TableCollector({})
