"""A shard as the keeper sees it, and what it tells others of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_NOTED = ("node", "file", "table", "transitions")


@dataclass
class Entry:
    """One shard.

    Attributes:
        name, node: of the shard.
        actor: that answers for it; None before the first could be made.
        made: whether this actor lives as far as is known; if not, another one is to be made.
        file: its last file, or None.
        table: its table's id as last heard; 0 before the first time.
        transitions: in it, as last heard.
        state: "starting", "ready", "silent".
        ask: the outstanding question how it is, or None.
    """

    name: str
    node: str
    actor: Any = None
    made: bool = False
    file: str | None = None
    table: int = 0
    transitions: int = 0
    state: str = "starting"
    ask: Any = None

    def noted(self) -> dict[str, Any]:
        """What the next keeper has to know of it: arguments to make it with, beside its name."""
        return {field: getattr(self, field) for field in _NOTED}


@dataclass(frozen=True)
class Seen:
    """What a process needs to know of the shards.

    Attributes:
        version: another after every change, whichever keeper says it.
        shards: (name, node, table, actor) of each that is ready.
        lost, transitions_lost: shards lost so far, and what they held.
    """

    version: int
    shards: tuple[tuple[str, str, int, Any], ...]
    lost: int
    transitions_lost: int
