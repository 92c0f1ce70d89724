"""Two sides, each in a process of its own, asked one step at a time.

    parent ──"step"──► side      one optimiser step, sampling and rewards included ──► {"seconds": ..., "learned": ..., ...}
           ──"memory"─►          peak resident MiB of the process and of those that it started
           ──"first"──►          the token ids of the first rows, which must be those of the other side

A side is a function `serve(asked, ...)`. What it prints goes to a file.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


@dataclass
class Side:
    """The parent's end of one process. `said` is what it said when it was ready."""

    name: str
    process: Any
    pipe: Any
    said: Any = None

    def ask(self, what: str) -> Any:
        """Raises RuntimeError with the side's own words where it failed."""
        self.pipe.send(what)
        return self.wait()

    def wait(self) -> Any:
        try:
            ok, said = self.pipe.recv()
        except EOFError:
            self.process.join(5)
            code = self.process.exitcode
            raise RuntimeError(f"{self.name}: the process ended ({code}; -9 is mostly for want of memory); its log says more") from None
        if not ok:
            raise RuntimeError(f"{self.name} failed:\n{said}")
        return said

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self.pipe.send("end")
        self.process.join(20)
        self.process.kill()
        self.process.join()


def open_side(name: str, serve: str, arguments: tuple[Any, ...], log: Path) -> Side:
    """Starts `serve`, a "module:function", with (asked, *arguments) in a fresh process and waits until it is ready."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_run, args=(theirs, serve, arguments, log), name=name)
    process.start()
    theirs.close()
    side = Side(name, process, ours)
    side.said = side.wait()
    return side


def _run(pipe: Connection, serve: str, arguments: tuple[Any, ...], log: Path) -> None:
    """In the child."""
    file = log.open("w")
    os.dup2(file.fileno(), sys.stdout.fileno())
    os.dup2(file.fileno(), sys.stderr.fileno())
    module, _, function = serve.partition(":")
    try:
        with suppress(Ended):
            vars(importlib.import_module(module))[function](Asked(pipe), *arguments)
    except BaseException:
        pipe.send((False, traceback.format_exc()))


class Ended(Exception):
    """The parent wants no more."""


@dataclass
class Asked:
    """The child's end: `ready` once, then one `reply` to each step that is asked for. Other requests are answered on the way."""

    pipe: Connection
    first: Any = None

    def ready(self, said: Mapping[str, Any]) -> None:
        """Says what was built and waits for the first step. Of it, `first` is kept for when it is asked for."""
        self.first = said.get("first")
        self.reply({name: value for name, value in said.items() if name != "first"})

    def reply(self, said: Any) -> None:
        """Answers, and returns when a step is asked for. Raises Ended."""
        self.pipe.send((True, said))
        while (what := self.pipe.recv()) != "step":
            if what == "end":
                raise Ended
            self.pipe.send((True, memory_mb() if what == "memory" else self.first))


def settle() -> None:
    """Waits for the device, so that a clock read now counts what was asked of it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory_mb() -> float:
    """Peak resident memory of this process and of those that it has started; on a GPU, what torch held there. Not ru_maxrss: a spawned
    process begins that count with what its parent held."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(_peak_kb(process.pid) for process in processes) / 1024


def _peak_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def ask_once(serve: str, arguments: tuple[Any, ...], log: Path) -> Any:
    """What a "module:function" says in a process of its own when it is ready."""
    side = open_side(serve, serve, arguments, log)
    side.close()
    return side.said
