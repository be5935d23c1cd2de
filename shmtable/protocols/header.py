"""What a table's header says: strategies and layout, written down and made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from shmtable.columns import Schema
from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.index import Extra, Layout
from shmtable.index.layout import fixed_rows
from shmtable.protocols.options import Options
from shmtable.shm.header import header_bytes
from shmtable.strategies import STRATEGIES, StateSpec, Strategy, make_strategy

_EXAMPLES = {"sampler": "UniformSampleStrategy()", "ejector": "FifoEjectionStrategy()"}


def extra_rows(schema: Schema) -> int:
    """Rows that a sequence may bring beyond its transitions: at least a last observation."""
    return max(1, schema.max_look_ahead)


def classes_of(schema: Schema, *strategies: Strategy) -> dict[str, type[Any]]:
    """By name, the classes of the mappers and strategies."""
    inner = [part for strategy in strategies for part in strategy.parts()]
    parts = [*(column.mapper for column in schema.virtual), *strategies, *inner]
    return {type(part).__name__: type(part) for part in parts}


def describe(strategy: Strategy) -> dict[str, Any]:
    """A strategy, in types that JSON knows."""
    return {
        "type": type(strategy).__name__,
        "config": strategy.config(),
        "states": [list(asdict(state).values()) for state in strategy.states()],
    }


def check_strategy(what: str, strategy: object, kind: type[Strategy]) -> None:
    """Refuse what is no strategy of that kind.

    Raises:
        SpecError: it is not.
    """
    if not isinstance(strategy, kind):
        raise SpecError(
            f"{what} is {strategy!r}; give an instance of a {kind.__name__}, "
            f"for example {what}={_EXAMPLES[what]}"
        )


def made_strategy(
    spec: Mapping[str, Any], kind: type[Strategy], classes: Mapping[str, type[Any]]
) -> Any:
    """The strategy that ``describe`` has written down; see ``make_strategy``.

    Raises:
        ArenaDamagedError: its arrays are not laid out as it needs them.
    """
    made = make_strategy(kind, spec["type"], spec["config"], {**STRATEGIES, **classes})
    if describe(made)["states"] != spec["states"]:
        raise ArenaDamagedError(
            f"the table's description of {spec['type']}'s arrays is not what the class asks for; "
            "use the version of it that the table was made with, or create the table again"
        )
    return made


def plan_layout(spec: Mapping[str, Any], schema: Schema, options: Options, factor: int) -> Layout:
    """Where everything lies in a table of this description."""
    arrays = []
    rows = None
    extra = extra_rows(schema)
    if options.storage_device is None:
        arrays += [Extra(f"column/{name}", "row", size) for name, size in schema.regions.items()]
        arrays += [Extra(f"tag/{c.name}", "slot", c.row_bytes) for c in schema.tags]
    else:
        replaces = options.on_duplicate == "replace"
        rows = fixed_rows(options.maxlen, options.max_sequences, extra, replaces)
        # Slots for a file's sequences beside those there are; tags are on the device, too.
        factor = min(factor, 2)
    for role in ("sampler", "ejector"):
        for state in (StateSpec(*entry) for entry in spec[role]["states"]):
            item_bytes = np.dtype(state.dtype).itemsize
            per = "once" if state.per == "table" else state.per
            arrays.append(Extra(f"{role}/{state.name}", per, item_bytes, state.every))
    return Layout.plan(
        first_byte=header_bytes(spec),
        factor=factor,
        maxlen=options.maxlen,
        max_sequences=options.max_sequences,
        extra_rows=extra,
        arrays=arrays,
        rows=rows,
    )
