"""The program of a worker process: loads the rewards, calls them, and sends back the results.

        trainer ─ (specs, memory, sandboxed) ─►   ◄─ (problem, batched) of each reward; in a sandbox also why it cannot be entered, or ""
        trainer ─ (which, prompt, texts) ─►       ◄─ the results of each text, as soon as it is scored: so it is known which call hangs

The worker's messages are JSON (worker_protocol.py).

The parameters of a reward decide how it is called: `(prompt, response, **columns)` once for each response, TRL's
`(prompts, completions, **columns)` once for the group. It receives the columns that it names, or all where it takes `**columns`. A class,
or a factory function, is called with the settings first.

Left out: TRL's `completion_ids` and `trainer_state`; async rewards. Memory is limited on Linux only.
"""

from __future__ import annotations

import difflib
import faulthandler
import importlib
import importlib.util
import inspect
import json
import math
import os
import pickle
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from ikusei.guard import sandbox
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.worker_protocol import read, written
from ikusei.rewards import BUILT_IN
from ikusei.types import Prompt, RewardResult, content_id

SIGNATURES = "(prompt, response, **columns) or TRL's (prompts, completions, **columns)"
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
MAX_NOTE = 400  # characters: what a reward raises or returns can be of any length


@dataclass(frozen=True)
class Loaded:
    """A loaded reward. `takes` are the columns passed to it (None: all), `needs` those without a default."""

    name: str
    function: Callable[..., Any]
    batched: bool
    takes: frozenset[str] | None
    needs: frozenset[str]


def main(file_descriptor: int, trainer: int) -> None:
    """Serves the trainer at the other end of the pipe until it closes it or is gone."""
    pipe = Connection(file_descriptor)
    specs, memory_mb, sandboxed = pipe.recv()
    if not sandboxed:  # a process with a second thread cannot enter a user namespace
        threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()
    _confine(memory_mb)
    rewards = [_load_and_report(spec, pipe) for spec in specs]
    user = None
    if sandboxed:
        try:
            user = sandbox.enter(file_descriptor, trainer)
            problem = ""
        except OSError as error:
            problem = str(error)
        pipe.send_bytes(json.dumps(problem).encode())
    with suppress(EOFError):
        while True:
            which, prompt, texts = pipe.recv()
            reward = rewards[which]
            assert reward is not None, "the trainer asks only where all were loaded"
            for message in score(reward, prompt, texts, user):
                pipe.send_bytes(message)


def _load_and_report(spec: RewardSpec, pipe: Connection) -> Loaded | None:
    """Loads one reward, and sends the trainer its (problem, batched)."""
    try:
        loaded = load(spec)
        pipe.send_bytes(json.dumps(["", loaded.batched]).encode())
        return loaded
    except ValueError as error:
        pipe.send_bytes(json.dumps([str(error), False]).encode())
        return None


def load(spec: RewardSpec) -> Loaded:
    """Raises ValueError with path, reason and fix, where there is no such reward or it cannot be called."""
    try:
        function = _made(_find(BUILT_IN.get(spec.path, spec.path)), spec.settings)
        parameters = inspect.signature(function).parameters
        batched = "completions" in parameters
        if not batched and list(parameters)[:2] != ["prompt", "response"]:
            raise _Unfit(f"takes ({', '.join(parameters)}); allowed: {SIGNATURES}; rename its parameters")
        if vars(type(function)).get("executes") and not (spec.sandboxed or spec.unconfined):
            raise _Unfit("runs what the model has written; say so in the recipe: executes: true, or unconfined: true")
    except BaseException as error:  # BaseException: a file may well call sys.exit when it is imported
        raise ValueError(f"reward {spec.name!r}: {spec.path}: {_one_line(error)}") from error
    own = () if batched else ("prompt", "response")
    named = {name: each for name, each in parameters.items() if name not in own and each.kind in BY_NAME}
    every = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    needs = frozenset(name for name, each in named.items() if each.default is each.empty)
    return Loaded(spec.name, function, batched, None if every else frozenset(named), needs)


def score(reward: Loaded, prompt: bytes, texts: list[str], user: int | None = None) -> Iterator[bytes]:
    """Yields a message with the results of each text, or one message for all texts where the reward is batched. With a `user`, each call
    runs in a sandbox cell.

    Each call gets its own copy of the prompt, so a reward that changes its columns affects no other call.
    """
    for some in [texts] if reward.batched else [[text] for text in texts]:
        work = partial(_results_of, reward, prompt, some)
        yield work() if user is None else _from_cell(reward, user, work, len(some))


def _results_of(reward: Loaded, prompt: bytes, texts: list[str]) -> bytes:
    own = pickle.loads(prompt)
    return written(_call_batched(reward, own, texts) if reward.batched else [_call(reward, own, text) for text in texts])


def _from_cell(reward: Loaded, user: int, work: Callable[[], bytes], count: int) -> bytes:
    """The message of a cell, or the status `crashed` where it sent no valid message."""
    start, reply = time.perf_counter(), sandbox.in_cell(user, work)
    try:
        results = read(reply) if isinstance(reply, bytes) else []
        how = "what it said is no answer" if isinstance(reply, bytes) else reply
    except ValueError as error:
        results, how = [], str(error)
    seconds = time.perf_counter() - start
    crashed = {reward.name: RewardResult(None, "crashed", seconds, f"{reward.name}: the call ended its process ({how})"[:MAX_NOTE])}
    return written(results if len(results) == count else [crashed] * count)


def _call(reward: Loaded, prompt: Prompt, text: str) -> dict[str, RewardResult]:
    start = time.perf_counter()
    try:
        columns = {name: value for name, value in prompt.columns.items() if name not in ("prompt", "response")}
        value = reward.function(prompt, text, **_taken(reward, columns))
        return _results(reward.name, value, time.perf_counter() - start)
    except BaseException as error:  # BaseException: sys.exit() in a reward must not end the worker
        return {reward.name: _failed(reward.name, _one_line(error), time.perf_counter() - start)}


def _call_batched(reward: Loaded, prompt: Prompt, texts: list[str]) -> list[dict[str, RewardResult]]:
    """A failed call fails every text; a value that is no number fails its own text only."""
    start = time.perf_counter()
    try:
        columns: dict[str, Any] = {name: [value] * len(texts) for name, value in prompt.columns.items()}
        messages = prompt.asked if isinstance(prompt.asked, tuple) else prompt.columns.get("messages")
        columns["prompts"] = [prompt.text if messages is None else list(messages)] * len(texts)
        columns["completions"] = list(texts) if messages is None else [[{"role": "assistant", "content": text}] for text in texts]
        values = reward.function(**_taken(reward, columns))
        seconds = (time.perf_counter() - start) / len(texts)
        if isinstance(values, list | tuple) and len(values) == len(texts):
            return [_results(reward.name, value, seconds) for value in values]
        given = f"{len(values)} values" if isinstance(values, list | tuple) else _shown(values)
        problem = f"returned {given} for {len(texts)} completions; allowed: a list with one number or None for each"
    except BaseException as error:  # as above
        problem = _one_line(error)
    return [{reward.name: _failed(reward.name, problem, time.perf_counter() - start)}] * len(texts)


def _taken(reward: Loaded, columns: dict[str, Any]) -> dict[str, Any]:
    if missing := sorted(reward.needs - columns.keys()):
        seen = ", ".join(columns) or "none"
        raise ValueError(f"column {missing[0]!r} missing; columns seen: {seen}; rename the column or the parameter, or give it a default")
    return columns if reward.takes is None else {name: value for name, value in columns.items() if name in reward.takes}


def _results(name: str, value: Any, seconds: float) -> dict[str, RewardResult]:
    """The result of a reward. Where it returned several numbers by name, each has a result too, and the reward's value is their sum."""
    if value is None:
        return {name: RewardResult(None, "not_applicable", seconds)}
    numbers = value if isinstance(value, dict) else {name: value}
    if not numbers or not all(isinstance(each, Real) for each in numbers.values()):
        problem = f"returned {_shown(value)}; allowed: a number, a dict of numbers by name, or None where it does not apply"
        return {name: _failed(name, problem, seconds)}
    floats = {str(key): float(each) for key, each in numbers.items()}
    total = math.fsum(floats.values())
    if not math.isfinite(total):
        return {name: RewardResult(None, "not_finite", seconds, f"{name}: returned {_shown(value)}")}
    named = {f"{name}/{key}": RewardResult(each, "ok", seconds) for key, each in floats.items()} if isinstance(value, dict) else {}
    return {name: RewardResult(total, "ok", seconds)} | named


def _failed(name: str, problem: str, seconds: float) -> RewardResult:
    return RewardResult(None, "error", seconds, f"{name}: {problem}"[:MAX_NOTE])


def _shown(value: Any) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"


def _one_line(error: BaseException) -> str:
    """The exception in one line, with the innermost line of the user's own file in its traceback."""
    if isinstance(error, _Unfit):
        return str(error)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    places = [(frame.filename, frame.lineno) for frame in frames if frame.filename == frames[0].filename]
    if isinstance(error, SyntaxError):
        places = [(error.filename or "", error.lineno)]
    message = " ".join(traceback.format_exception_only(error)[-1].split())[: MAX_NOTE // 2]
    return f"{message} ({Path(places[-1][0]).name}:{places[-1][1]})" if places else message


class _Unfit(Exception):
    """The object at a path cannot be used as a reward; the text gives reason and fix."""


def _find(path: str) -> Any:
    where, _, name = path.rpartition(":" if ":" in path else ".")
    if not where or path.endswith(".py"):
        close = difflib.get_close_matches(path, BUILT_IN, 1)
        meant = f"did you mean {close[0]!r}?" if close else "name the function, as in file.py:function"
        raise _Unfit(f"no built-in reward; allowed: {', '.join(BUILT_IN)}, package.module:function or file.py:function; {meant}")
    module = _file(where) if where.endswith(".py") else importlib.import_module(where)
    members = vars(module)
    if name not in members:
        own = [each for each, value in members.items() if callable(value) and not each.startswith("_")]
        close = difflib.get_close_matches(name, own, 1)
        raise _Unfit(
            f"no {name!r} in {where}; it has: {', '.join(own) or 'no functions'}" + (f"; did you mean {close[0]!r}?" if close else "")
        )
    return members[name]


def _made(target: Any, settings: Mapping[str, Any]) -> Any:
    """The reward itself, or the instance that a class or factory makes from the settings."""
    if not settings and not inspect.isclass(target):
        return target
    try:
        inspect.signature(target).bind(**settings)
    except TypeError as error:
        allowed = ", ".join(inspect.signature(target).parameters)
        fix = "settings go to a class, or to a function that makes a reward"
        raise _Unfit(f"got settings {dict(settings)}: {error}; allowed: {allowed}; {fix}") from error
    return target(**settings)


@cache
def _file(where: str) -> ModuleType:
    """Imports a user's file as a module; its folder goes on sys.path, as if the file were run."""
    file = Path(where).resolve()
    if not file.is_file():
        raise _Unfit(f"no such file: {file}; give its path from the working directory, or in full")
    spec = importlib.util.spec_from_file_location(f"reward_{content_id(str(file))}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[spec.name] = module  # dataclasses and pickle look a module up by its name
    spec.loader.exec_module(module)
    return module


def _confine(memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()  # the traceback of a segfault goes to the log
    if sys.platform == "linux":  # elsewhere the limit is refused or has no effect
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        given = memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (given if hard == resource.RLIM_INFINITY else min(given, hard), hard))


def _end_with(trainer: int) -> None:
    """Ends the process once the trainer is gone: a worker that hangs in a call would not see its pipe close."""
    while os.getppid() == trainer:
        time.sleep(1.0)
    os._exit(1)
