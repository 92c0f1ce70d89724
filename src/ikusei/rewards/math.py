r"""Numeric match of the answer with the column `answer` by math-verify, after a filter for inputs on which it gives false positives.

math-verify alone finds nothing in `<think></think>42` and calls "3*4" equal to 12, so that echoing the question earns the reward; it takes
the last of several numbers, reads 1e2 as 1 and cannot read the minus sign of Unicode. So the answer part is cut out first, and where the
gold answer is a number, the answer has to show exactly one number, written out, with at most words around it:

        gold 12      12   １２   12.0   1.2e1   **12**   \boxed{12}   "The answer is $12$."                          1.0
        gold 12      3*4   "12 = 3*4"   "11 or 12"   \boxed{11}\boxed{12}   24/2   √144   12x   12!   "a dozen"       0.0

A fraction or a per cent counts only where the gold answer is one, and a fraction only in lowest terms: "6/3" is an echo, not a 2. Two
floats are equal when they agree to six decimals. Where the gold answer is no number (an expression, a set), the whole answer is compared
as LaTeX.

Left out: time limits (the worker's is the only one; math-verify's own needs the main thread); the words around a number ("minus 12" is a
12); telling a solved expression from an echoed one where the gold answer is itself an expression.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from ikusei.text.answer import split_thought
from ikusei.types import Prompt

HALF_WIDTH = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | dict.fromkeys(map(ord, "−‐‑‒–"), "-")
BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}[^{}]*)*)\}")  # braces within, two deep
FRAC = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
BOLD = re.compile(r"\*\*([^*]+)\*\*")
MARKS = re.compile(r"\\[()\[\]]|\$")  # the delimiters of formulas
NUMBER = re.compile(
    r"(?<![\w.,/^*+-])[+-]?(?:(?P<fraction>\d+/[1-9]\d*)|(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[+-]?\d{1,3})?(?P<percent>\s?%)?)"
    r"(?![\w/^*%!\u0370-\u03ff]|[.,]\d)",  # no digit, sign, or letter of a formula beside it
    re.ASCII | re.IGNORECASE,
)


def math(prompt: Prompt, response: str, **columns: Any) -> float:
    """1.0 where the answer equals the column `answer`, else 0.0."""
    if "answer" not in columns:
        seen = ", ".join(columns) or "none"
        raise ValueError(f"math: column 'answer' missing; columns seen: {seen}; name the column of the right answer 'answer'")
    given = str(columns["answer"]).rpartition("####")[2].strip()  # GSM8K's answers are worked, and end in #### and the number
    gold, answer = (_unboxed(text.translate(HALF_WIDTH)) for text in (given, split_thought(response)[1]))
    gold_number, number = _number(gold), _number(answer)
    if gold_number is None:
        return float(verify(_gold(gold, False), _read(answer, False), timeout_seconds=None))
    if number is None or _kind(number) not in ("", _kind(gold_number)):
        return 0.0
    return float(verify(_gold(gold_number, True), _read(number, True), timeout_seconds=None))


def _unboxed(text: str) -> str:
    """The inside of the box where there is one; nothing where there are several."""
    boxes = BOXED.findall(text)
    return text if not boxes else boxes[0] if len(boxes) == 1 else ""


def _number(text: str) -> str | None:
    """The one number of the text without commas and exponent; None where there are several, none, or signs of a calculation."""
    text = MARKS.sub(" ", BOLD.sub(r" \1 ", FRAC.sub(r"\1/\2", text.replace(r"\%", "%"))))
    found = list(NUMBER.finditer(text))
    if len(found) != 1 or not all(map(_is_prose, NUMBER.sub(" ", text))):
        return None
    number = found[0][0].replace(",", "").rstrip("% ")
    if found[0]["fraction"]:
        return number if str(Fraction(number)).lstrip("-") == number.lstrip("+-") else None
    return format(Decimal(number), "f") + ("%" if found[0]["percent"] else "")


def _is_prose(letter: str) -> bool:
    """Letters and marks of any script, white space, and the punctuation that says nothing in mathematics."""
    return unicodedata.category(letter)[0] in "LMZ" or letter in "\n\t.,:;?!'\"=。、「」"


def _kind(number: str) -> str:
    return "/" if "/" in number else "%" if "%" in number else ""


@lru_cache(maxsize=1024)
def _gold(text: str, number: bool) -> list[Any]:
    if not (parsed := _read(text, number)):
        raise ValueError(f"math: cannot read the gold answer {text!r}; allowed: a number or LaTeX; for words take the reward 'exact'")
    return parsed


def _read(text: str, number: bool) -> list[Any]:
    if number:
        return parse(text, [ExprExtractionConfig()], parsing_timeout=0)
    return parse(text if "$" in text else f"${text}$", [LatexExtractionConfig()], parsing_timeout=0)
