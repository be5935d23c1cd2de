"""The TensorBoard reporter: what it writes, and when."""

from __future__ import annotations

from shmtable import Onlooker
from shmtable.integrations.tensorboard import TensorBoardReporter
from tests.cli.running import fill
from tests.tables import small_sequence


class Scalars:
    """Stands in for a SummaryWriter, of which only ``add_scalar`` is asked."""

    def __init__(self) -> None:
        self.written: dict[int | None, dict[str, float]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        self.written.setdefault(global_step, {})[tag] = scalar_value


def test_numbers_now_and_rates_since_the_report_before(make_table) -> None:
    table, scalars = make_table(), Scalars()
    fill(table)
    with Onlooker.of(table) as onlooker:
        reporter = TensorBoardReporter(scalars, onlooker, prefix="replay")
        reporter.report(0)
        table.add_sequence(99, small_sequence(99, 50))
        reporter.report(10)
    first, second = scalars.written[0], scalars.written[10]
    assert first["replay/fill"] == 0.1 and first["replay/replay_ratio"] == 0.4
    assert not [tag for tag in first if tag.endswith("_per_s")]
    assert second["replay/transitions_added"] == 150
    assert second["replay/transitions_added_per_s"] > 0
    assert second["replay/transitions_sampled_per_s"] == 0
    assert second["replay/processes_alive"] == 1
    assert all(isinstance(value, (int, float)) for value in second.values())
