"""Deliberately broken builds: one function of the product with a few words changed."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Mutant(NamedTuple):
    """One function.

    Attributes:
        owner: the class or module that it belongs to.
        name: of the function.
        changes: pieces of its text, and what stands there instead.
    """

    owner: Any
    name: str
    changes: dict[str, str]

    def build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the changed function in place, for this process and those forked from it."""
        function = getattr(self.owner, self.name)
        monkeypatch.setattr(self.owner, self.name, self._changed(function))

    def _changed(self, function: Callable[..., Any]) -> Any:
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in self.changes.items():
            assert source.count(old) == 1, f"{self.name} has changed: {old!r}"
            source = source.replace(old, new)
        # Annotations stay text, as in the module.
        source = f"from __future__ import annotations\n{source}"
        made: dict[str, Any] = {}
        exec(compile(source, f"<broken {self.name}>", "exec"), dict(function.__globals__), made)
        broken = made[self.name]
        # Its globals are the module's own, so that what tests put there is seen.
        return type(function)(
            broken.__code__,
            function.__globals__,
            self.name,
            function.__defaults__,
            function.__closure__,
        )
