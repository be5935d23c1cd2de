"""``python -m tests.bench.memory``: what an Atari transition takes in memory.

Fills a table several times over with whole episodes, first in, first out, and prints the memory
it has taken from the system by then, for each transition it holds on average. Stacks of four
frames and the next ones are sampled; each frame is stored once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from shmtable import (
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    FrameStack,
    TagColumn,
    UniformSampleStrategy,
    VirtualColumn,
)

FRAME = (84, 84, 1)
FRAME_BYTES = 84 * 84
STACK = 4
LONGEST = 5000

Lengths = Callable[[np.random.Generator], int]
LENGTHS: dict[str, Lengths] = {
    "all of 200": lambda random: 200,
    "1 to 400": lambda random: int(random.integers(1, 401)),
    "about 250, up to 4000": lambda random: int(np.clip(random.lognormal(5.5, 0.8), 20, 4000)),
    "30 or 2000": lambda random: int(random.choice([30, 2000])),
    "500 to 5000": lambda random: int(random.integers(500, LONGEST)),
}


def columns() -> list[Column]:
    """Frames, and all that is computed from them; an action, a reward, and how it ended."""
    stack = (STACK, *FRAME)
    return [
        Column("frames", FRAME, "uint8"),
        VirtualColumn("obs", stack, "uint8", "frames", FrameStack(STACK)),
        VirtualColumn("next_obs", stack, "uint8", "frames", FrameStack(STACK, ahead=1)),
        Column("actions", (), "int64"),
        Column("rewards", (), "float32"),
        TagColumn("terminated", (), bool),
    ]


def measure(lengths: Lengths, transitions: int, times: int) -> tuple[float, float]:
    """Bytes taken and bytes of content but the frames', per transition held on average."""
    random = np.random.default_rng(0)
    frames = np.ones((LONGEST + 1, *FRAME), np.uint8)
    with ArrayMemoryTable(
        columns=columns(),
        maxlen=transitions,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
        seed=0,
    ) as table:
        added, identity, held = 0, 0, []
        while added < times * transitions:
            length = lengths(random)
            sequence = {
                "frames": frames[: length + 1],
                "actions": np.zeros(length, np.int64),
                "rewards": np.zeros(length, np.float32),
                "terminated": True,
            }
            table.add_sequence(identity, sequence)
            added, identity = added + length, identity + 1
            if added > transitions:
                held.append(table.size())
        mean = float(np.mean(held))
        small = sum(column.row_bytes for column in columns()[3:5])
        return table.stats().bytes_reserved / mean, small


def main() -> int:
    """Measures every distribution of lengths."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--transitions", type=int, default=50_000, help="in the table (50000)")
    parser.add_argument("--times", type=int, default=4, help="to fill the table (4)")
    options = parser.parse_args()
    print(
        f"{options.transitions} transitions of {FRAME_BYTES} bytes a frame, {options.times} times"
    )
    print("\n| episodes | bytes per transition | less the small columns, in frames |")
    print("| --- | ---: | ---: |")
    for name, lengths in LENGTHS.items():
        taken, small = measure(lengths, options.transitions, options.times)
        print(f"| {name} | {taken:.0f} | {(taken - small) / FRAME_BYTES:.3f} |", flush=True)
    for name, number in (("stacks stored", STACK), ("stacks and next stacks", 2 * STACK)):
        print(f"| (any, {name}) | {number * FRAME_BYTES} | {number}.000 |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
