"""Pieces of code in the tables of a page: do they name and call what there is?"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Language:
    """What a piece of code may speak of.

    Attributes:
        named: functions and classes by name; None for those that cannot be looked into.
        stands_for: classes of which variables of these names may be.
        whole: the name of the class whose arguments stand alone.
    """

    named: Mapping[str, Any]
    stands_for: Mapping[str, tuple[Any, ...]]
    whole: str


def cells(text: str) -> Iterator[tuple[str, str]]:
    """What stands in the two columns of a page's tables, row by row."""
    for line in text.splitlines():
        if line.startswith("|"):
            _, left, right, _ = line.split("|")
            yield left, right


def codes(text: str) -> list[str]:
    """The pieces of code in a text."""
    return re.findall(r"`([^`]+)`", text)


def wrong(code: str, language: Language) -> list[str]:
    """What a piece of code names or calls that is not there.

    An ellipsis among the arguments of a call stands for those that are left out.
    """
    tree = _parsed(code, language.whole)
    if tree is None:
        return [f"no Python: {code}"]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += _wrong_call(node, language)
        elif isinstance(node, ast.Name) and node.id[0].isupper():
            if node.id not in language.named:
                found.append(f"no such name: {node.id}")
        elif isinstance(node, ast.Attribute):
            owners = language.stands_for.get(ast.unparse(node.value), ())
            if owners and not any(hasattr(owner, node.attr) for owner in owners):
                found.append(f"no such attribute: {ast.unparse(node)}")
    return found


def _parsed(code: str, whole: str) -> ast.AST | None:
    for attempt in (code, f"{whole}(..., {code})"):
        try:
            tree = ast.parse(attempt)
        except SyntaxError:
            continue
        first = tree.body[0]
        if not (isinstance(first, ast.Assign) and isinstance(first.targets[0], ast.Name)):
            return tree
    return None


def _wrong_call(call: ast.Call, language: Language) -> list[str]:
    candidates: list[Any] = []
    if isinstance(call.func, ast.Name):
        if call.func.id not in language.named:
            return [f"no such name: {call.func.id}"]
        candidates = [language.named[call.func.id]]
    elif isinstance(call.func, ast.Attribute):
        owners = language.stands_for.get(ast.unparse(call.func.value), ())
        candidates = [getattr(owner, call.func.attr, None) for owner in owners]
    known = [candidate for candidate in candidates if candidate is not None]
    if known and not any(_takes(candidate, call, language) for candidate in known):
        return [f"cannot be called so: {ast.unparse(call)}"]
    return []


def _takes(function: Callable[..., Any], call: ast.Call, language: Language) -> bool:
    if inspect.isclass(function) and type(function).__call__ is not type.__call__:
        function = function.__init__  # type: ignore[misc]
    taken = inspect.signature(function)
    method = "self" in taken.parameters
    given: list[Any] = [argument for argument in call.args if not _left_out(argument)]
    named = [word.arg for word in call.keywords if word.arg is not None]
    bind = taken.bind_partial if any(map(_left_out, call.args)) else taken.bind
    try:
        bind(*[None] * method, *given, **dict.fromkeys(named))
    except TypeError:
        return False
    if method or "options" not in taken.parameters:
        return True
    # Options are handed on.
    whole = inspect.signature(language.named[language.whole])
    return all(word in taken.parameters or word in whole.parameters for word in named)


def _left_out(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Starred) or (
        isinstance(argument, ast.Constant) and argument.value is Ellipsis
    )
