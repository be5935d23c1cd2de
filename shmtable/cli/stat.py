"""say everything about one table: counts, limits, columns, strategies, processes"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.tables import chosen, listed_json, name_argument
from shmtable.cli.text import ago_text, aligned, bytes_text, duration_text, number_text, share_text
from shmtable.errors import ArenaError
from shmtable.onlooker import Onlooker
from shmtable.protocols import census

NAME = "stat"
DESCRIPTION = (
    "Say everything about one table. It is only read, without its lock: the run does not notice."
)
EXAMPLES = """\
$ shmtable stat
$ shmtable stat replay
$ shmtable stat replay --json | jq .stats.replay_ratio"""


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    name_argument(command, optional=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Look."""
    name = chosen(options)
    path, magic_link = census.find(name, options.directory)
    found = census.listed(name, path, magic_link=magic_link)
    if found.stats is None:
        raise ArenaError(found.detail, path=path)
    with Onlooker(name, directory=options.directory) as onlooker:
        return {
            **listed_json(found),
            "half_changed": onlooker.is_half_changed(),
            **onlooker.description(),
        }


def show(found: dict[str, Any]) -> str:
    """For people."""
    detail = f" ({found['detail']})" if found["detail"] else ""
    rows = [("path", found["path"]), ("state", f"{found['state']}{detail}")]
    rows += _facts(found, found["stats"])
    lines = [found["name"], *aligned(rows), "", *aligned(_columns(found))]
    if found["stats"]["processes"]:
        lines += ["", *aligned(process_rows(found["stats"]["processes"]))]
    return "\n".join(lines)


def _facts(found: dict[str, Any], stats: dict[str, Any]) -> list[tuple[str, str]]:
    transitions = f"{stats['transitions']:,} of {stats['maxlen']:,} ({share_text(stats['fill'])})"
    limit = f"at most {stats['max_sequences']:,}"
    rows = [
        ("transitions", f"{transitions}, {stats['writing_transitions']:,} being written"),
        ("sequences", f"{stats['sequences']:,}, {limit}"),
        (
            "in",
            f"{stats['transitions_added']:,} transitions in {stats['sequences_added']:,} sequences",
        ),
        (
            "out",
            f"{stats['transitions_sampled']:,} transitions in {stats['windows_sampled']:,} windows",
        ),
        (
            "gone",
            f"{stats['transitions_removed']:,} transitions in "
            f"{stats['sequences_removed']:,} sequences",
        ),
        ("replay ratio", number_text(stats["replay_ratio"])),
        ("oldest", f"{stats['oldest_age_transitions']:,} transitions have been added since"),
        ("limiter", stats["limiter"] or "none"),
        ("adds", _standing(stats["adds_blocked"], stats["adds_waited_s"])),
        ("samples", _standing(stats["samples_blocked"], stats["samples_waited_s"])),
        (
            "lock",
            f"{stats['lock_waits']:,} waits, {duration_text(stats['lock_waited_s'])} in all; "
            f"{stats['recoveries']:,} repairs",
        ),
        (
            "memory",
            f"{bytes_text(found['taken_bytes'])} taken, {bytes_text(stats['bytes_payload'])} of "
            f"it live rows; {bytes_text(stats['bytes_address'])} of address space",
        ),
        *((role, _strategy(found[role])) for role in ("sampler", "ejector")),
        ("options", _arguments(found["options"])),
    ]
    if found["half_changed"]:
        rows.append(("note", "a change is under way, or was cut off and is repaired by the next"))
    return rows


def _standing(blocked: str, waited_s: float) -> str:
    state = f"held back: {blocked}" if blocked else "go through"
    return f"{state}; waited {duration_text(waited_s)} in all" if waited_s else state


def _strategy(found: dict[str, Any]) -> str:
    return f"{found['type']}({_arguments(found['config'])})"


def _arguments(found: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in found.items())


def _columns(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("COLUMN", "KIND", "DTYPE", "SHAPE", "")]
    for column in found["columns"]:
        note = ""
        if column["kind"] == "VirtualColumn":
            note = f"{column['mapper']} of {column['target_name']}"
        elif column["name"] == found["length_key"]:
            note = "tells a sequence's length"
        shape = str(tuple(column["shape"]))
        rows.append((column["name"], column["kind"], column["dtype"], shape, note))
    return rows


def process_rows(
    processes: list[dict[str, Any]], rates: dict[int, float] | None = None
) -> list[tuple[str, ...]]:
    """A table of processes, with what each adds per second where that is known."""
    per_second = () if rates is None else ("ADDS/S",)
    rows: list[tuple[str, ...]] = [
        ("PROCESS", "", "TRANSITIONS ADDED", *per_second, "LAST ADDED", "LAST SAMPLED")
    ]
    for entry in processes:
        alive = {True: "alive", False: "dead", None: "unknown"}[entry["alive"]]
        rate = () if rates is None else (number_text(rates.get(entry["pid"], 0.0)),)
        rows.append(
            (
                str(entry["pid"]),
                alive,
                f"{entry['transitions_added']:,}",
                *rate,
                ago_text(entry["added_s_ago"]),
                ago_text(entry["sampled_s_ago"]),
            )
        )
    return rows
