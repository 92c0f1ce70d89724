"""The trainer's handle on one worker process: starts it, calls it, kills it when it hangs and replaces it when it has ended.

A worker is a fresh Python interpreter in its own session, not a fork of the multithreaded trainer. It does not import the caller's script,
as multiprocessing would, and all processes that its rewards start are killed with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path

from ikusei.guard import worker_protocol
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.worker_protocol import RewardResults
from ikusei.types import RewardResult, Status

LOAD_S = 60.0  # for importing one reward


@dataclass(frozen=True)
class Call:
    """One call: the index of a reward, and the texts of one group."""

    which: int
    prompt: bytes  # pickled once for all rewards
    texts: list[str]
    outcome: Future[list[RewardResults]]


class Worker:
    """Used by one thread at a time; `stop` alone may be called from another."""

    def __init__(self, specs: tuple[RewardSpec, ...], memory_mb: int, log: Path | None) -> None:
        self._specs, self._memory_mb, self._log = specs, memory_mb, log
        self._sandboxed = any(spec.sandboxed for spec in specs)
        self._process: subprocess.Popen[bytes] | None = None
        self._batched: list[bool] = []
        self._stopped = False

    def launch(self) -> None:
        """Starts the process and does not wait for it."""
        self._pipe, theirs = Pipe()
        path = [*filter(None, sys.path), os.getcwd()]
        code = f"import sys; sys.path[:] = {path}; from ikusei.guard.worker_main import main; main({theirs.fileno()}, {os.getpid()})"
        with theirs, open(self._log or os.devnull, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={"OMP_NUM_THREADS": "1"} | os.environ,  # more threads would take the cores of the trainer
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the trainer alone, and a session is killed as a whole
            )
        self._check_stopped()  # either this sees that it was stopped, or `stop` sees the process
        self._pipe.send((self._specs, self._memory_mb, self._sandboxed))

    def load(self) -> None:
        """Waits until every reward is loaded. Raises ValueError with the rewards that cannot be loaded, and why."""
        self._batched, problems = [], []
        for spec in self._specs:
            try:
                problem, batched = json.loads(self._receive(LOAD_S))
            except (EOFError, OSError) as error:
                _, how = self._end(error, LOAD_S)
                problems.append(f"reward {spec.name!r}: {spec.path}: loading it {how}; allowed: a file that defines and does nothing else")
                break
            self._batched.append(batched)
            problems += [problem] if problem else []
        else:
            problems += self._sandbox_problems() if self._sandboxed else []
        if problems:
            self.kill()
            raise ValueError("\n".join(problems))

    def _sandbox_problems(self) -> list[str]:
        try:
            problem = json.loads(self._receive(LOAD_S))
        except (EOFError, OSError) as error:
            problem = f"entering it {self._end(error, LOAD_S)[1]}"
        names = ", ".join(repr(spec.name) for spec in self._specs)
        text = f"reward {names}: runs what the model has written, and this system cannot isolate it ({problem}); allowed: Linux as root or "
        text += "with unprivileged user namespaces; where you trust the model, say so in the recipe: unconfined: true"
        return [text] if problem else []

    def score(self, call: Call) -> list[RewardResults]:
        """The results of each text. A call over its time limit, or one that ends the process, fails its own text only."""
        spec, texts, results = self._specs[call.which], call.texts, []
        while len(results) < len(texts):
            self._ready()
            try:
                self._pipe.send((call.which, call.prompt, texts[len(results) :]))
                while len(results) < len(texts):
                    results += worker_protocol.read(self._receive(spec.timeout_s))
            except (EOFError, OSError, ValueError) as error:  # ValueError: an invalid message, so the process is not trusted further
                status, how = self._end(error, spec.timeout_s)
                seconds = spec.timeout_s if status == "timeout" else 0.0
                lost = len(texts) - len(results) if self._batched[call.which] else 1
                results += [{spec.name: RewardResult(None, status, seconds, f"{spec.name}: the call {how}")}] * lost
        return results

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _kill_session(process)
            process.wait()
            self._pipe.close()

    def stop(self) -> None:
        """Ends the process even in the middle of a call, which then raises RuntimeError."""
        self._stopped = True
        if (process := self._process) is not None:
            _kill_session(process)

    def _ready(self) -> None:
        self._check_stopped()
        if self._process is None or self._process.poll() is not None:  # a process may end between two calls
            self.kill()
            self.launch()
            self.load()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise RuntimeError("the reward workers were closed before this group was scored")

    def _receive(self, limit_s: float) -> bytes:
        if not self._pipe.poll(limit_s):
            raise TimeoutError
        return self._pipe.recv_bytes(worker_protocol.MOST_BYTES)

    def _end(self, error: Exception, limit_s: float) -> tuple[Status, str]:
        """Makes sure that the process has ended; returns the status of the call and the cause in words."""
        self._check_stopped()
        assert self._process is not None
        if isinstance(error, TimeoutError):
            self.kill()
            return "timeout", f"took more than {limit_s:g} s and was stopped"
        with suppress(subprocess.TimeoutExpired):  # the pipe closes a moment before the process has ended
            self._process.wait(1.0)
        code = self._process.returncode
        self.kill()
        how = "closing its pipe" if code is None else f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        why = ", often for want of memory" if code == -signal.SIGKILL else ""
        log = f"; what it wrote is in {self._log}" if self._log else ""
        return "crashed", f"ended the process ({how}){why}{log}"


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it has ended, and so has all that it started
        os.killpg(process.pid, signal.SIGKILL)
