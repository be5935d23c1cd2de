"""Three machines with networks of their own, and the wire of one is pulled.

What a simulated node cannot show: its processes live on, no connection is closed, and packets just
do not arrive any more.
"""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shmtable import FifoEjectionStrategy, UniformSampleStrategy
from shmtable.integrations.ray import DistributedMemoryTable
from tests.integrations.ray.conftest import until
from tests.integrations.ray.machines import Machine, Network, NotPermittedError, judge, why_not
from tests.tables import small_columns, small_sequence, torn_windows

NAME = "wired"
PORT = 6379
# A machine that is not heard of for about ten seconds is taken for lost.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}
START_S, PROGRAM_S = 120.0, 240.0
PROGRAM = "from tests.integrations.ray.test_namespaces import learn; learn()"


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    try:
        made = Network(3)
    except (NotPermittedError, PermissionError, FileNotFoundError) as error:
        pytest.skip(f"no machines can be made of namespaces here: {error}")
    with made:
        yield made


def test_only_what_the_system_refuses_is_taken_for_a_refusal() -> None:
    judge(["ip"], 0, "whatever it says")
    with pytest.raises(NotPermittedError, match="ip: RTNETLINK answers: Operation not permitted"):
        judge(["ip"], 2, "RTNETLINK answers: Operation not permitted\n")
    with pytest.raises(subprocess.CalledProcessError):
        judge(["ip"], 255, 'Command "lnik" is unknown, try "ip link help".\n')


def start_ray(machine: Machine, log: Path, *arguments: str) -> None:
    size = ["--num-cpus=2", f"--object-store-memory={80 << 20}", "--disable-usage-stats"]
    own = [f"--node-ip-address={machine.address}", *size, *arguments]
    # Into a file: what it starts lives on, and might have a pipe open for ever.
    with log.open("w") as file:
        starting = machine.start(
            *("-m", "ray.scripts.scripts", "start", *own),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            assert starting.wait(START_S) == 0, log.read_text()
        finally:
            starting.kill()
            starting.wait()


def add_here(table: DistributedMemoryTable, number: int) -> None:
    for identity in range(100 * number, 100 * number + 4):
        table.add_sequence(identity, small_sequence(identity, 10))


def learn() -> None:
    """The program that runs on the first machine; says what it has seen."""
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    nodes = sorted((node["NodeManagerAddress"], node["NodeID"]) for node in ray.nodes())
    options: dict[str, Any] = {
        "columns": small_columns(),
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
    }
    with DistributedMemoryTable(name=NAME, maxlen=1000, deadline_s=1.0, **options) as table:
        task = ray.remote(num_cpus=0)(add_here)
        asked = [
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(table, number)
            for number, (_, node) in enumerate(nodes)
        ]
        ray.get(asked)
        heard = table._keeper().heard
        until(lambda: list(ray.get(heard.remote()).values()) == [40] * 3, "all to be heard of")
        batches = table.batches(60, 3, timeout_s=30)
        whole = until(lambda: covering(next(batches), 3), "a batch of all three shards")
        print("cut", flush=True)
        input()  # with batches asked for, whose answers may be on their way
        meanwhile = list(itertools.islice(batches, 20))
        until(lambda: table.stats().shards_lost, "the loss in stats()")
        stats = table.stats()
        after = [next(batches) for _ in range(20)][10:]  # others were asked for before
        batches.close()
        add_here(table, 9)
        seen = {
            "nodes": [address for address, _ in nodes],
            "torn": [torn_windows(batch, 3) for batch in (whole, *meanwhile, *after)],
            "windows": [len(batch.points) for batch in (whole, *meanwhile, *after)],
            "identities": sorted({int(i) for batch in after for i in batch.points.identities}),
            "states": [shard.state for shard in stats.shards],
            "lost": [stats.shards_lost, stats.transitions_lost],
            "transitions": [stats.transitions, table.size()],
            "findings": [str(finding) for finding in table.check()],
        }
    ray.shutdown()
    print(json.dumps(seen), flush=True)


def covering(batch: Any, shards: int) -> Any:
    return batch if len(batch.points.tables) == shards else None


@pytest.mark.slow
def test_a_machine_that_is_cut_off_is_lost_and_nothing_else(
    network: Network, tmp_path: Path
) -> None:
    head, *others = network.machines
    address = f"{head.address}:{PORT}"
    start_ray(
        head,
        tmp_path / "head.log",
        *("--head", f"--port={PORT}", f"--temp-dir={network.folder}"),
        *("--include-dashboard=false", f"--system-config={json.dumps(HEALTH)}"),
    )
    for other in others:
        start_ray(other, tmp_path / f"{other.address}.log", f"--address={address}")
    errors = tmp_path / "program.log"
    with errors.open("w") as file:
        program = head.start(
            *("-c", PROGRAM, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
        )
    # Switching the machine off ends the program on it, and so what is read from it here.
    too_long = threading.Timer(PROGRAM_S, head.end)
    too_long.start()
    try:
        with program:
            assert program.stdout is not None
            assert program.stdin is not None
            # Ray may say something, too.
            assert any(line == "cut\n" for line in program.stdout), errors.read_text()
            network.cut(others[1])
            program.stdin.write("\n")
            program.stdin.flush()
            said = program.stdout.read()
        assert program.returncode == 0, errors.read_text()
    finally:
        too_long.cancel()
        too_long.join()
    seen = json.loads(said.splitlines()[-1])
    assert seen["nodes"] == [machine.address for machine in network.machines]
    assert seen["torn"] == [[]] * 31
    assert seen["windows"] == [60] * 31
    assert seen["identities"] == [0, 1, 2, 3, 100, 101, 102, 103]
    assert seen["states"] == ["ready"] * 2
    assert seen["lost"] == [1, 40]
    assert seen["transitions"] == [80, 120]
    assert seen["findings"] == []
    # What it holds is its own, and was out of reach when the table was ended.
    left = [any(NAME in found for found in m.shared_memory()) for m in network.machines]
    assert left == [False, False, True]
