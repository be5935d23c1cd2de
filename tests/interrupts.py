"""Interrupts at any moment, and calls cut off at every point at which Python looks for signals."""

from __future__ import annotations

import dis
import gc
import opcode
import signal
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any

# After these instructions the interpreter calls the handlers of signals that have arrived.
_LOOKS = {
    number
    for name, number in opcode.opmap.items()
    if name in ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX")
    or name.startswith(("CALL_FUNCTION", "CALL_METHOD", "JUMP_BACKWARD", "POP_JUMP_BACKWARD"))
}


def let_alarms_interrupt() -> None:
    """Let SIGALRM raise KeyboardInterrupt, wherever this process is.

    Python drops what is raised in a callback of the collector. Test libraries install some, and an
    interrupt that happened to hit one would never be seen.
    """
    gc.callbacks.clear()
    signal.signal(signal.SIGALRM, signal.default_int_handler)


def cut_off(
    call: Callable[[], object], point: int, files: tuple[str, ...], error: type[BaseException]
) -> bool:
    """Make a call in which a signal's handler raises.

    Args:
        call: what to do.
        point: the number, from 1 on, of the point at which it raises.
        files: only points in files whose path ends so are counted.
        error: what it raises.

    Returns:
        False when the call was over before.
    """
    left = point
    last: dict[FrameType, int] = {}  # offset of the instruction before

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if frame in last and _looks(frame.f_code, last[frame], frame.f_lasti):
                left -= 1
                if left == 0:
                    raise error
            last[frame] = frame.f_lasti
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except error:
        if left:
            raise
    finally:
        sys.settrace(before)
        last.clear()
    return left == 0


def _looks(code: CodeType, before: int, now: int) -> bool:
    """Whether what is raised at ``now`` is what a handler called behind ``before`` raises.

    It belongs to the instruction before: left out are points at which others would catch it.
    """
    if code.co_code[before] not in _LOOKS:
        return False
    entries = _entries(code)
    return _catcher(entries, before) == _catcher(entries, now)


def _catcher(entries: tuple[Any, ...], offset: int) -> int | None:
    return next((one.target for one in entries if one.start <= offset < one.end), None)


@cache
def _entries(code: CodeType) -> tuple[Any, ...]:
    """What catches exceptions where; before Python 3.11, that is no matter of the place."""
    parse: Any = getattr(dis, "_parse_exception_table", lambda _: ())
    return tuple(parse(code))
