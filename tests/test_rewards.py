"""The built-in rewards, and the cheap ways of earning each that are closed."""

from __future__ import annotations

import threading

import pytest

from ikusei.rewards.exact import exact
from ikusei.rewards.length import Length, overlong
from ikusei.rewards.math import math
from ikusei.rewards.think_format import ThinkFormat
from ikusei.text.answer import split_thought
from ikusei.types import Prompt

PROMPT = Prompt("p", (1, 2), "What is 3*4?", {"answer": "12"})


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>3+4</think>7", "3+4", "7"),
        (" <think>\n3+4\n</think>\n 7 \n", "3+4", "7"),
        ("7", None, "7"),
        ("<think></think>7", "", "7"),
        ("3+4</think>7", "3+4", "7"),
        ("<think>3+4 7", "3+4 7", ""),
        ("<think>a</think>b</think>7", "a</think>b", "7"),
        ("<think>a</think>b<think>c</think>7", "a</think>b<think>c", "7"),
        ("<think>3+4</think>So <answer> 7 </answer>.", "3+4", "7"),
        ("<answer>6</answer> no, <answer>7</answer>", None, "7"),
        ("<answer>6 <answer>7</answer>", None, "7"),
        ("<answer>7", None, "<answer>7"),
        ("<think><answer>7</answer></think>", "<answer>7</answer>", ""),
        ("", None, ""),
    ],
)
def test_split_thought(text: str, thought: str | None, answer: str) -> None:
    assert split_thought(text) == (thought, answer)


def test_exact_compares_the_answer_part() -> None:
    assert exact(PROMPT, "<think>3*4</think> 12\n", answer="12 ") == 1.0
    assert exact(PROMPT, "12", answer=12) == 1.0
    assert [exact(PROMPT, text, answer="12") for text in ("<think>12</think>", "<think>12", "12.", "112", "")] == [0.0] * 5
    with pytest.raises(ValueError, match="'answer' missing; columns seen: gold, level"):
        exact(PROMPT, "12", gold="12", level=3)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("12", "<think>3*4</think>12"),  # math-verify alone finds nothing here
        ("12", "<think></think><answer>12</answer>"),
        ("12", r"3*4 is \boxed{12}"),
        ("12", "The answer is $12$."),
        ("12", "答えは12です。"),
        ("12", "**12**"),
        ("12", "x = 12"),
        ("12", "12.0"),
        ("12", "１２"),
        (12, "12"),
        ("-5", "−5"),
        ("-5", "－５"),
        ("100", "1e2"),
        ("0.0012", "1.2E-3"),
        ("1000", "1,000"),
        ("1,000", "1000"),
        ("1/2", r"\frac{1}{2}"),
        ("-1/2", "-1/2"),
        ("1/2", "0.5"),
        ("50%", "50 %"),
        (r"\boxed{12}", "12"),
        ("x^2+1", "$1+x^2$"),
        (r"\{1,2\}", r"\{2,1\}"),
    ],
)
def test_math_accepts(gold: object, answer: str) -> None:
    assert math(PROMPT, answer, answer=gold) == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("12", "3*4"),  # each of these lines is a way to earn a reward without the number
        ("12", "3 × 4"),
        ("12", r"$3\cdot4$"),
        ("12", "12 = 3*4"),
        ("12", "3*4 = 12"),
        ("12", "24/2"),
        ("2", "6/3"),
        ("1/2", "2/4"),
        ("0.5", "1/2"),
        ("0.5", "50%"),
        ("12", "√144"),
        ("12", "12-0"),
        ("12", "12^1"),
        ("9", "2**3"),
        ("12", "12!"),
        ("12", "12x"),
        ("5", "5²"),
        ("2", "2π"),
        ("12", "- 12"),
        ("12", "11 or 12"),
        ("12", "11 12"),
        ("12", "12, 12"),
        ("12", r"\boxed{11} \boxed{12}"),
        ("x+1", "$x+1$ or $x+2$"),
        ("1", "1e2"),  # math-verify alone reads a 1
        ("1000", "1,00,0"),
        ("5", "−5"),
        ("12", "<think>12</think>"),
        ("12", "<think>12"),
        ("12", ""),
        ("12", "a dozen"),
        ("12", "1/0"),
        ("12", "1e999"),
        ("12", "9" * 5000),
        ("x+1", "x+2"),
    ],
)
def test_math_refuses(gold: str, answer: str) -> None:
    assert math(PROMPT, answer, answer=gold) == 0.0


def test_math_says_what_is_wrong_with_the_gold_answer() -> None:
    with pytest.raises(ValueError, match="cannot read the gold answer ''"):
        math(PROMPT, "12", answer="")  # and never: unreadable, so everything is right
    with pytest.raises(ValueError, match="'answer' missing; columns seen: none"):
        math(PROMPT, "12")


def test_math_works_off_the_main_thread() -> None:
    values: list[float] = []
    thread = threading.Thread(target=lambda: values.extend(math(PROMPT, text, answer="x+1") for text in ("1+x", "x")))
    thread.start()
    thread.join()
    assert values == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>3*4</think>12", 1.0),
        ("\n<think>\n3*4\n</think>\n\n<answer>12</answer>", 1.0),
        ("<think></think>12", 0.0),
        ("<think> \n\t</think>12", 0.0),
        ("<think>\u200b\u200b</think>12", 0.0),
        ("<think><answer></think>12", 0.0),
        ("<think></think>", 0.0),
        ("<think>3*4</think>", 0.0),
        ("<think>3*4</think> \n", 0.0),
        ("<think>3*4</think><answer> </answer>", 0.0),
        ("<think>3*4</think><answer>", 0.0),
        ("<think>a</think>b</think>c", 0.0),
        ("<think>a<think>b</think>c", 0.0),
        ("<think>a</think><think>b</think>c", 0.0),
        ("So: <think>3*4</think>12", 0.0),
        ("</think>3*4<think>12", 0.0),
        ("<think>3*4 = 12", 0.0),
        ("12", 0.0),
        ("", 0.0),
    ],
)
def test_think_format(text: str, value: float) -> None:
    assert ThinkFormat()(PROMPT, text) == value


def test_think_format_counts_what_can_be_seen() -> None:
    assert ThinkFormat(min_think_chars=3)(PROMPT, "<think>a b\u200bc</think>12") == 1.0
    assert ThinkFormat(min_think_chars=4)(PROMPT, "<think>a b\u200bc</think>12") == 0.0
    with pytest.raises(ValueError, match="min_think_chars=0"):
        ThinkFormat(min_think_chars=0)


def test_length_is_the_soft_overlong_punishment() -> None:
    assert [overlong(length, 100, 20) for length in (0, 80, 90, 100, 101)] == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert Length(100, 20)(PROMPT, "a" * 95) == -0.75
    text = "<think>" + "a" * 90 + "</think>" + "b" * 500
    assert (Length(100, 20)(PROMPT, text), Length(100, 20, of="thought")(PROMPT, text)) == (-1.0, -0.5)
    assert Length(100, 20, of="thought")(PROMPT, "b" * 500) == 0.0
    with pytest.raises(ValueError, match="soft_chars=0"):
        Length(100, 0)
