"""Machines that are namespaces of this one: each with a network, processes and memory of its own.

This machine's own network is not touched: the bridge between them, too, lies in a namespace. All
of it ends with the process that made it, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).parents[3]
_SPACES = ["--net", "--ipc", "--mount", "--pid"]
# The first process of a machine. When it ends, the kernel ends all others in there; it ends when
# nobody has the other end of its standard input any more. It says its number as it is outside.
_FIRST = """
read number rest < /proc/self/stat
mount -t proc proc /proc && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs "$0" &&
ip link set lo up && echo $number && read line
"""
_TRY = "ip link add x type veth && ip link add y type bridge && mount -t tmpfs tmpfs /dev/shm"
_LIMIT_S = 60.0
# What the programs say where a system, and not whoever calls them, is the reason.
_REFUSALS = (
    "not permitted", "ermission denied", "not supported", "nknown device type", "Invalid argument",
    "No space left", "annot allocate",
)  # fmt: skip


class NotPermittedError(Exception):
    """This system lets nobody make such machines."""


def judge(command: list[str], code: int, said: str) -> None:
    """Tell a system that does not permit it from a mistake in what was asked for.

    Raises:
        NotPermittedError: the former.
        subprocess.CalledProcessError: the latter.
    """
    if code and any(refusal in said for refusal in _REFUSALS):
        raise NotPermittedError(f"{command[0]}: {said.strip()}")
    if code:
        raise subprocess.CalledProcessError(code, command, stderr=said)


def why_not() -> str:
    """Why there can be no such machines here; empty where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux, and root"
    if missing := [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"network namespaces need the programs {', '.join(missing)}"
    command = ["unshare", *_SPACES, "--fork", "sh", "-c", _TRY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    try:
        judge(command, done.returncode, done.stderr)
    except NotPermittedError as error:
        return f"this system permits no network namespaces: {error}"
    return ""


class Machine:
    """One of them, without a wire yet.

    Args:
        folder: where it has a file system of its own; it shares all others.

    Attributes:
        pid: of its first process, as this process sees it.
        address: of its end of the wire.
    """

    def __init__(self, folder: str) -> None:
        command = ["unshare", *_SPACES, "--fork", "sh", "-c", _FIRST, folder]
        pipe = subprocess.PIPE
        self._first = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._first.stdout is not None
        if not (number := self._first.stdout.readline()):
            _, said = self._first.communicate(timeout=_LIMIT_S)
            judge(command, self._first.returncode, said)
        self.pid = int(number)
        self.address = ""

    def ip(self, arguments: str) -> None:
        """Change its network."""
        command = ["nsenter", f"--target={self.pid}", "--net", "ip", *arguments.split()]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
        judge(command, done.returncode, done.stderr)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Run Python on it."""
        inside = ["nsenter", f"--target={self.pid}", *_SPACES, sys.executable, *arguments]
        env = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_AUTH_MODE": "disabled",  # nobody else can reach it
        }
        return subprocess.Popen(inside, env=env, text=True, **options)

    def shared_memory(self) -> list[str]:
        """What is in its ``/dev/shm``."""
        return os.listdir(Path("/proc", str(self.pid), "root", "dev", "shm"))

    def end(self) -> None:
        """Switch it off."""
        with self._first:  # closes its standard input, and waits
            pass


class Network:
    """So many machines, joined by wires to a bridge, with addresses from 10.77.0.1 on.

    Args:
        count: of machines.

    Attributes:
        machines: they.
        folder: a path at which each of them has a file system of its own.
    """

    def __init__(self, count: int) -> None:
        with ExitStack() as stack:
            self.folder = tempfile.mkdtemp(prefix="ray-")  # sockets lie in it: it must be short
            stack.callback(shutil.rmtree, self.folder)
            self._bridge = self._machine(stack)
            self._bridge.ip("link add bridge type bridge")
            self._bridge.ip("link set bridge up")
            self.machines = [self._machine(stack) for _ in range(count)]
            for number, machine in enumerate(self.machines, 1):
                machine.address = f"10.77.0.{number}"
                # Made in there, and not here: nothing of it is ever seen outside.
                self._bridge.ip(f"link add port{number} type veth peer wire netns {machine.pid}")
                self._bridge.ip(f"link set port{number} master bridge up")
                machine.ip(f"address add {machine.address}/24 dev wire")
                machine.ip("link set wire up")
                machine.ip("route add default dev wire")  # by this Ray finds its own address
            self._stack = stack.pop_all()

    def _machine(self, stack: ExitStack) -> Machine:
        machine = Machine(self.folder)
        stack.callback(machine.end)
        return machine

    def cut(self, machine: Machine) -> None:
        """Pull its wire: nothing comes through any more, and nobody is told."""
        self._bridge.ip(f"link set port{self.machines.index(machine) + 1} down")

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
