"""``python -m tests.bench.peers.serve PEER``: one peer, told over a pipe what to do.

Reads a JSON object a line and answers each with one:

* ``{"hello": true}``: the peer's ``versions``.
* ``{"case": {...}, "calls": n}``: calls the case n times; "us" is what each took. The table is
  made when first asked for; with no calls it is only made, and warmed up.
* ``{"forget": true}``: closes all tables.
* ``{"crowd": {"writers": k, "seconds": s, "watched": b}}``: a turn of many processes.
* ``{"memory": {...}}``: "bytes" that making a table of that setup takes from the system.
* ``{"attached": {...}}``: "bytes" that a process takes more for having such a shared table.
* ``{"split": {"count": B, "length": L, "calls": n}}``: median "us" of each part of a sample.

What goes wrong is answered by "cannot" and a text, and the next line is read.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from time import perf_counter_ns
from typing import Any

from tests.bench.peers.base import WARM_UP, Call, Cannot, Case, Peer, Setup, Table, call_for
from tests.bench.peers.crowd import Crowd, attached_bytes


class Server:
    """A peer, its open tables and its calls."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._tables: dict[Setup, Table] = {}
        self._calls: dict[Case, Call] = {}
        self._crowd: Crowd | None = None
        self._remark = ""
        self._ahead = int(getattr(peer, "AHEAD", 0))

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """What the message asks for."""
        if "case" in message:
            case = Case(**{**message["case"], "setup": Setup(**message["case"]["setup"])})
            call = self._call(case)
            if case.op == "sample" and message["calls"]:
                for _ in range(self._ahead):  # what lay ready cost others' time
                    call()
            return {"us": _times(call, int(message["calls"]))}
        if "crowd" in message:
            return self._turn(message["crowd"])
        if "memory" in message:
            return {"bytes": self._memory(Setup(**message["memory"]))}
        if "forget" in message:
            self.close()
            return {}
        if "attached" in message:
            return {"bytes": attached_bytes(self._peer.share(Setup(**message["attached"])))}
        if "split" in message:
            return {"us": self._peer.split(**message["split"])}
        return {"versions": self._peer.versions(), "ahead": self._ahead}

    def _call(self, case: Case) -> Call:
        if case not in self._calls:
            if case.setup not in self._tables:
                self._tables[case.setup] = self._peer.open(case.setup)
            call = call_for(self._tables[case.setup], case)
            for _ in range(WARM_UP):
                call()
            self._calls[case] = call
        return self._calls[case]

    def _turn(self, wanted: dict[str, Any]) -> dict[str, Any]:
        setup = Setup(transitions=wanted.pop("transitions", Setup.transitions))
        if self._crowd is None:
            shared = self._peer.share(setup)
            self._remark = shared.remark
            self._crowd = Crowd(shared, setup)
        return {**self._crowd.turn(**wanted), "remark": self._remark}

    def _memory(self, setup: Setup) -> int:
        sample = Case(setup, "sample", 32)
        small = self._peer.open(Setup(setup.layout, 10 * setup.steps, setup.priorities))
        call_for(small, sample)()  # what the first use of all takes is no part
        gc.collect()
        before = _resident()
        table = self._peer.open(setup)
        call_for(table, sample)()
        gc.collect()
        taken = _resident() - before
        table.close()
        small.close()
        return taken

    def close(self) -> None:
        """Closes every table, and ends the crowd."""
        self._calls.clear()
        while self._tables:
            self._tables.popitem()[1].close()
        if self._crowd:
            self._crowd.close()
            self._crowd = None
        gc.collect()


def _resident() -> int:
    """Bytes of memory this process has, shared ones too."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _times(call: Call, calls: int) -> list[float]:
    times = []
    gc.collect(1)
    gc.disable()
    try:
        for _ in range(calls):
            begin = perf_counter_ns()
            result = call()
            end = perf_counter_ns()
            del result  # giving memory back is the caller's time
            times.append((end - begin) / 1000)
    finally:
        gc.enable()
    return times


def main() -> int:
    """Serves until the other end is closed."""
    # Some libraries print; the pipe is for answers only.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        peer: Any = importlib.import_module(f"tests.bench.peers.{sys.argv[1]}")
        _single_threaded()
    except Exception as error:  # not installed, or not for this machine
        print(json.dumps({"cannot": _said(error)}), file=answers, flush=True)
        return 1
    server = Server(peer)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:  # whatever a peer raises is its answer
            answer = {"cannot": _said(error)}
        print(json.dumps(answer), file=answers, flush=True)
    server.close()
    return 0


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0][:200] if lines else ""
    return text if isinstance(error, Cannot) else f"{type(error).__name__}: {text}"


def _single_threaded() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if __name__ == "__main__":
    raise SystemExit(main())
