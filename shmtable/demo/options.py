"""The demo's command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

LONGEST_EPISODE = 500  # CartPole-v1 stops there

DESCRIPTION = (
    "Actor processes play CartPole-v1 into one shared table, while a learner samples from it and "
    "trains double DQN until the pole stays up."
)
EXIT_CODES = """\
exit codes:
  0    solved
  1    not solved: the time was up, or no actor was left
  2    could not start: a wrong option, or a package is missing
  130  ended by Ctrl-C
"""


@dataclass(frozen=True)
class Options:
    """What can be chosen; :func:`parse` says what each means."""

    actors: int
    seed: int
    maxlen: int
    batch_size: int
    replay_ratio: float
    learning_rate: float
    warmup: int
    exploration: int
    threshold: float
    evaluation_episodes: int
    evaluate_every: int
    time_limit: float
    output: Path


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Reads the command line (``sys.argv`` when None); a wrong one ends the program with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m shmtable.demo",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return chosen(parser.parse_args(arguments))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives a parser everything that can be chosen."""
    _add_run(parser)
    _add_learning(parser)
    _add_goal(parser)


def chosen(parsed: argparse.Namespace) -> Options:
    """What was chosen of it; a parser may have arguments of its own beside."""
    return Options(**{field.name: getattr(parsed, field.name) for field in fields(Options)})


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser.add_argument_group("the run"))
    add("--actors", _whole(1), 2, "processes that play")
    add("--seed", _whole(0), 0, "another seed, another run")
    add("--time-limit", _positive, 570.0, "give up after so many seconds")
    add("--output", Path, Path("demo-output"), "directory the picture is written to")


def _add_learning(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser.add_argument_group("learning"))
    add("--maxlen", _whole(LONGEST_EPISODE), 50_000, "transitions the table holds")
    add("--batch-size", _whole(1), 128, "transitions per update")
    add("--replay-ratio", _positive, 32.0, "transitions sampled for every transition added")
    add("--learning-rate", _positive, 5e-4, "Adam's step size")
    add("--warmup", _whole(1), 1000, "transitions added before the first update")
    add("--exploration", _whole(1), 10_000, "transitions over which random actions become rare")


def _add_goal(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser.add_argument_group("the goal"))
    add("--threshold", float, 475.0, "mean return of the greedy policy that counts as solved")
    add("--evaluation-episodes", _whole(1), 20, "episodes of that mean")
    add("--evaluate-every", _whole(1), 500, "updates between evaluations")


def _adder(group: argparse._ArgumentGroup) -> Callable[..., None]:
    def add(flag: str, kind: Callable[[str], object], default: object, text: str) -> None:
        group.add_argument(
            flag, type=kind, default=default, metavar="X", help=f"{text} (default: {default})"
        )

    return add


def _whole(least: int) -> Callable[[str], int]:
    """A parser of integers that are ``least`` or more."""

    def parse_whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too small; give {least} or more")
        return value

    return parse_whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not possible; give a number above 0")
    return value
