"""Code: runs the program in a response and compares what it prints or returns. Expected results never enter its process.

    tests: [{"input": "3 4\\n", "output": "7"}, ...]          what it reads and what it has to print
    tests: [{"call": "add(3, 4)", "result": "7"}, ...]        what is called after it, and the value, as Python writes it

A program that ends the process, replaces `print` or says that all is well earns nothing: it would have to know the results. It runs in a
process of its own, and this reward's worker is in a sandbox (guard/sandbox.py): no network, no files of the project, another user.

Left out: other languages; packages beyond Python's own.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, ClassVar

from ikusei.rewards.running import lines_of, printed
from ikusei.text.answer import split_thought
from ikusei.types import Prompt

FENCED = re.compile(r"```(?:python|py)?\n(.*?)```", re.DOTALL)
LONGEST = 20_000  # characters of a program
TRIED = "try: {mark}_said = repr({call})\nexcept Exception: {mark}_said = None\nprint('\\n{mark}' + str({mark}_said))\n"
Test = Mapping[str, str]


@dataclass(frozen=True)
class Code:
    """1.0 where every test passes, else 0.0; with `partial` the share that do. All runs of an answer together may take `seconds`: what
    is not done by then has failed."""

    seconds: float = 2.0
    partial: bool = False

    executes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 60:
            raise ValueError(f"code: got seconds={self.seconds}; allowed: above 0, at most 60; the reward's timeout_s must be longer")

    def __call__(self, prompt: Prompt, response: str, *, tests: Sequence[Test], **columns: Any) -> float:
        wrong = [test for test in tests if {"input", "output"} - test.keys() and {"call", "result"} - test.keys()]
        if wrong or not tests:
            given = f"{dict(wrong[0])}" if wrong else "none"
            raise ValueError(f'tests: got {given}; allowed: {{"input": ..., "output": ...}} or {{"call": ..., "result": ...}}, one or more')
        source, passed = program(response), 0
        if not 0 < len(source) <= LONGEST:
            return 0.0
        for right in outcomes(source, tests, time.monotonic() + self.seconds):
            if not right and not self.partial:
                return 0.0
            passed += right
        return passed / len(tests)


def program(response: str) -> str:
    """The last fenced block of what follows the thought, else all of it."""
    answer = split_thought(response)[1]
    fenced = FENCED.findall(answer)
    return (fenced[-1] if fenced else answer).strip()


def outcomes(source: str, tests: Sequence[Test], until: float) -> Iterator[bool]:
    """Whether each test passes, the calls first, all of them in one process."""
    calls = [test for test in tests if "call" in test]
    if calls:
        mark = f"m{token_hex(8)}"  # which the program cannot know, so that it cannot print what it was not asked
        calls_source = "".join(TRIED.format(mark=mark, call=test["call"]) for test in calls)
        lines = printed(f"{source}\n{calls_source}", "", sum(len(test["result"]) for test in calls), until)
        values = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
        yield from (len(values) == len(calls) and _same(values[i], test["result"]) for i, test in enumerate(calls))
    for test in tests:
        if "call" not in test:
            yield printed(source, test["input"], len(test["output"]), until) == lines_of(test["output"])


def _same(got: str, wanted: str) -> bool:
    try:
        return bool(ast.literal_eval(got) == ast.literal_eval(wanted))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return got == wanted
