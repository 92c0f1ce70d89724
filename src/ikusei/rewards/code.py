"""Code: the program in an answer is run, and judged by what it prints or returns. What is right never enters its process.

    tests: [{"input": "3 4\\n", "output": "7"}, ...]          what it reads and what it has to print
    tests: [{"call": "add(3, 4)", "result": "7"}, ...]        what is called after it, and the value, as Python writes it

A program that ends the process, replaces `print` or says that all is well earns nothing: it would have to know the results. It runs in a
process of its own, and this reward's worker is in a jail (guard/jail.py): no network, no files of the project, another user.

Left out: other languages; packages beyond Python's own.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from ikusei.text.answer import split_thought
from ikusei.types import Prompt

PYTHON = os.path.realpath(sys.executable)
FENCED = re.compile(r"```(?:python|py)?\n(.*?)```", re.DOTALL)
LONGEST = 20_000  # characters of a program, and of what is read of its output


@dataclass(frozen=True)
class Code:
    """1.0 where every test passes, else 0.0; with `partial` the share that do. Each run may take `seconds`."""

    seconds: float = 2.0
    partial: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 60:
            raise ValueError(f"code: got seconds={self.seconds}; allowed: above 0, at most 60, and less than the reward's timeout_s")

    def __call__(self, prompt: Prompt, response: str, *, tests: Sequence[Mapping[str, str]], **columns: Any) -> float:
        wrong = [test for test in tests if {"input", "output"} - test.keys() and {"call", "result"} - test.keys()]
        if wrong or not tests:
            given = f"{dict(wrong[0])}" if wrong else "none"
            raise ValueError(f'tests: got {given}; allowed: {{"input": ..., "output": ...}} or {{"call": ..., "result": ...}}, one or more')
        source = program(response)
        if not 0 < len(source) <= LONGEST:
            return 0.0
        passed = self._called(source, [test for test in tests if "call" in test])
        passed += [_printed(source, test["input"], self.seconds) == _lines(test["output"]) for test in tests if "call" not in test]
        return sum(passed) / len(passed) if self.partial else float(all(passed))

    def _called(self, source: str, tests: Sequence[Mapping[str, str]]) -> list[bool]:
        """All calls in one process, after the program."""
        if not tests:
            return []
        mark = token_hex(8)  # which the program cannot know, so that it cannot print what it was not asked
        asked = "".join(f"print('\\n{mark}' + repr({test['call']}))\n" for test in tests)
        said = [line.removeprefix(mark) for line in _printed(f"{source}\n{asked}", "", self.seconds) if line.startswith(mark)]
        return [len(said) == len(tests) and _same(got, test["result"]) for got, test in zip(said or [""] * len(tests), tests, strict=False)]


def program(response: str) -> str:
    """The last fenced block of what follows the thought, else all of it."""
    answer = split_thought(response)[1]
    fenced = FENCED.findall(answer)
    return (fenced[-1] if fenced else answer).strip()


def _printed(source: str, given: str, seconds: float) -> list[str]:
    """The lines that the program prints, without the white space at their ends; none where it fails or takes too long."""
    command = [PYTHON, "-I", "-S", "-c", source]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, errors="replace")
    except (subprocess.TimeoutExpired, ValueError):  # ValueError: a null character in the program
        return []
    return _lines(done.stdout[:LONGEST]) if done.returncode == 0 else []


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _same(got: str, wanted: str) -> bool:
    try:
        return bool(ast.literal_eval(got) == ast.literal_eval(wanted))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return got == wanted
