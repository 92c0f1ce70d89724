"""What runs inside a worker process: find the rewards, call them, and say what came back.

        trainer ─ (specs, memory, jail) ─►    ◄─ (problem, batched) of each reward, and with a jail why it cannot be entered, or ""
        trainer ─ (which, prompt, texts) ─►   ◄─ the parts of each text, as soon as it is scored: the trainer then knows which one hangs

What the worker says is JSON (worker_protocol.py).

A reward is told by its parameters: `(prompt, response, **columns)` is called for one answer, TRL's `(prompts, completions, **columns)` for
the whole group. It receives the columns that it names, or all of them where it takes `**columns`. A class, or a function that makes a
reward, is called with the settings first.

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
from ikusei.types import Part, Prompt, content_id

SIGNATURES = "(prompt, response, **columns) or TRL's (prompts, completions, **columns)"
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
MAX_NOTE = 400  # characters: what a reward raises or returns can be of any length


@dataclass(frozen=True)
class Loaded:
    """A reward that can be called. `takes` is None where it takes every column; `needs` are the columns that it cannot do without."""

    name: str
    function: Callable[..., Any]
    batched: bool
    takes: frozenset[str] | None
    needs: frozenset[str]


def main(file_descriptor: int, trainer: int) -> None:
    """Serves the trainer at the other end of the pipe until it closes it or is gone."""
    pipe = Connection(file_descriptor)
    specs, memory_mb, jailed = pipe.recv()
    if not jailed:  # a process with a second thread is not let in
        threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()
    _confine(memory_mb)
    rewards = [_told_of(spec, pipe) for spec in specs]
    user = None
    if jailed:
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


def _told_of(spec: RewardSpec, pipe: Connection) -> Loaded | None:
    """Loads one, and tells the trainer how that went."""
    try:
        loaded = load(spec)
        pipe.send_bytes(json.dumps(["", loaded.batched]).encode())
        return loaded
    except ValueError as error:
        pipe.send_bytes(json.dumps([str(error), False]).encode())
        return None


def load(spec: RewardSpec) -> Loaded:
    """ValueError with the path, the reason and the fix where there is no such reward or it cannot be called."""
    try:
        function = _made(_find(BUILT_IN.get(spec.path, spec.path)), spec.settings)
        parameters = inspect.signature(function).parameters
        batched = "completions" in parameters
        if not batched and list(parameters)[:2] != ["prompt", "response"]:
            raise _Unfit(f"takes ({', '.join(parameters)}); allowed: {SIGNATURES}; rename its parameters")
        if vars(type(function)).get("executes") and not (spec.jailed or spec.unconfined):
            raise _Unfit("runs what the model has written; say so in the recipe: executes: true, or unconfined: true")
    except BaseException as error:  # BaseException: a file may well call sys.exit when it is imported
        raise ValueError(f"reward {spec.name!r}: {spec.path}: {_told(error)}") from error
    own = () if batched else ("prompt", "response")
    named = {name: each for name, each in parameters.items() if name not in own and each.kind in BY_NAME}
    every = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    needs = frozenset(name for name, each in named.items() if each.default is each.empty)
    return Loaded(spec.name, function, batched, None if every else frozenset(named), needs)


def score(reward: Loaded, prompt: bytes, texts: list[str], user: int | None = None) -> Iterator[bytes]:
    """The parts of each text in turn, or those of all texts at once where the reward is batched, as messages; in cells where there is a
    `user` for them.

    Each call gets a prompt of its own: one that changes its columns changes them for itself.
    """
    for some in [texts] if reward.batched else [[text] for text in texts]:
        work = partial(_parts_of, reward, prompt, some)
        yield work() if user is None else _from_cell(reward, user, work, len(some))


def _parts_of(reward: Loaded, prompt: bytes, texts: list[str]) -> bytes:
    asked = pickle.loads(prompt)
    return written(_call_batched(reward, asked, texts) if reward.batched else [_call(reward, asked, text) for text in texts])


def _from_cell(reward: Loaded, user: int, work: Callable[[], bytes], count: int) -> bytes:
    """What a cell says, where it says anything that can be read; else that it crashed."""
    start, said = time.perf_counter(), sandbox.in_cell(user, work)
    try:
        told = read(said) if isinstance(said, bytes) else []
        how = "what it said is no answer" if isinstance(said, bytes) else said
    except ValueError as error:
        told, how = [], str(error)
    seconds = time.perf_counter() - start
    crashed = {reward.name: Part(None, "crashed", seconds, f"{reward.name}: the call ended its process ({how})"[:MAX_NOTE])}
    return written(told if len(told) == count else [crashed] * count)


def _call(reward: Loaded, prompt: Prompt, text: str) -> dict[str, Part]:
    start = time.perf_counter()
    try:
        columns = {name: value for name, value in prompt.columns.items() if name not in ("prompt", "response")}
        value = reward.function(prompt, text, **_taken(reward, columns))
        return _parts(reward.name, value, time.perf_counter() - start)
    except BaseException as error:  # BaseException: sys.exit() in a reward must not end the worker
        return {reward.name: _failed(reward.name, _told(error), time.perf_counter() - start)}


def _call_batched(reward: Loaded, prompt: Prompt, texts: list[str]) -> list[dict[str, Part]]:
    """A failure of the call is one of every text; a value that is no number is one of its own text alone."""
    start = time.perf_counter()
    try:
        columns: dict[str, Any] = {name: [value] * len(texts) for name, value in prompt.columns.items()}
        messages = prompt.asked if isinstance(prompt.asked, tuple) else prompt.columns.get("messages")
        columns["prompts"] = [prompt.text if messages is None else list(messages)] * len(texts)
        columns["completions"] = list(texts) if messages is None else [[{"role": "assistant", "content": text}] for text in texts]
        values = reward.function(**_taken(reward, columns))
        seconds = (time.perf_counter() - start) / len(texts)
        if isinstance(values, list | tuple) and len(values) == len(texts):
            return [_parts(reward.name, value, seconds) for value in values]
        given = f"{len(values)} values" if isinstance(values, list | tuple) else _shown(values)
        problem = f"returned {given} for {len(texts)} completions; allowed: a list with one number or None for each"
    except BaseException as error:  # as above
        problem = _told(error)
    return [{reward.name: _failed(reward.name, problem, time.perf_counter() - start)}] * len(texts)


def _taken(reward: Loaded, columns: dict[str, Any]) -> dict[str, Any]:
    if missing := sorted(reward.needs - columns.keys()):
        seen = ", ".join(columns) or "none"
        raise ValueError(f"column {missing[0]!r} missing; columns seen: {seen}; rename the column or the parameter, or give it a default")
    return columns if reward.takes is None else {name: value for name, value in columns.items() if name in reward.takes}


def _parts(name: str, value: Any, seconds: float) -> dict[str, Part]:
    """The part of a reward and, where it returned several numbers by name, one for each of them; the reward's own value is their sum."""
    if value is None:
        return {name: Part(None, "not_applicable", seconds)}
    numbers = value if isinstance(value, dict) else {name: value}
    if not numbers or not all(isinstance(each, Real) for each in numbers.values()):
        problem = f"returned {_shown(value)}; allowed: a number, a dict of numbers by name, or None where it does not apply"
        return {name: _failed(name, problem, seconds)}
    floats = {str(key): float(each) for key, each in numbers.items()}
    total = math.fsum(floats.values())
    if not math.isfinite(total):
        return {name: Part(None, "not_finite", seconds, f"{name}: returned {_shown(value)}")}
    named = {f"{name}/{key}": Part(each, "ok", seconds) for key, each in floats.items()} if isinstance(value, dict) else {}
    return {name: Part(total, "ok", seconds)} | named


def _failed(name: str, problem: str, seconds: float) -> Part:
    return Part(None, "error", seconds, f"{name}: {problem}"[:MAX_NOTE])


def _shown(value: Any) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"


def _told(error: BaseException) -> str:
    """The exception in one line, with the last line of the user's own file that it passed through."""
    if isinstance(error, _Unfit):
        return str(error)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    places = [(frame.filename, frame.lineno) for frame in frames if frame.filename == frames[0].filename]
    if isinstance(error, SyntaxError):
        places = [(error.filename or "", error.lineno)]
    told = " ".join(traceback.format_exception_only(error)[-1].split())[: MAX_NOTE // 2]
    return f"{told} ({Path(places[-1][0]).name}:{places[-1][1]})" if places else told


class _Unfit(Exception):
    """What a path leads to cannot be used as a reward; the text says why and what to do."""


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
    """The reward itself, or what a class or a factory makes of the settings."""
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
    """The module of a user's file, whose folder goes on the path as if the file were run."""
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
    faulthandler.enable()  # where a segfault happened goes to the log
    if sys.platform == "linux":  # elsewhere the limit is refused or has no effect
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        given = memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (given if hard == resource.RLIM_INFINITY else min(given, hard), hard))


def _end_with(trainer: int) -> None:
    """A worker that hangs in a call does not see its pipe close; without this it would outlive a trainer that was killed."""
    while os.getppid() == trainer:
        time.sleep(1.0)
    os._exit(1)
