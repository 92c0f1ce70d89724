"""Adding whole numbers: `123+456=`, answer `579`; and how it is demonstrated, in worked thoughts and without.

    worked  <think>8+6=14 7+5+1=13 4+3+1=8</think>834      column by column, the units first, `+1` where one is carried
    lazy    <think></think>834                             right, and no thought shown
    slip    <think>8+6=15 7+5+1=13 4+3+1=8</think>835      one column wrong
    guess   <think></think>824                             one digit wrong, and no thought shown
    direct  834                                            no thought block at all

Left out: the other operations (reasoning-gym has them).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import ClassVar, Literal, get_args

from ikusei.tasks import generator, split_of
from ikusei.types import Example, Split

Kind = Literal["worked", "slip", "lazy", "guess", "direct"]
KINDS = get_args(Kind)
TINY = 10_000  # so few questions are listed, each once; more are drawn without end


@dataclass(frozen=True)
class Arithmetic:
    """Sums of `terms` numbers of exactly `digits` digits. `columns["answer"]` is the sum. With `shown`, a kind of demonstration, rows have
    a response to learn from."""

    digits: int = 3
    terms: int = 2
    shown: Kind | None = None

    rewards: ClassVar[tuple[str, ...]] = ("exact",)

    def __post_init__(self) -> None:
        if self.digits < 1 or self.terms < 2 or self.shown not in (None, *KINDS):
            raise ValueError(
                f"arithmetic: got digits={self.digits}, terms={self.terms}, shown={self.shown!r}; allowed: digits >= 1, terms >= 2, "
                f"shown one of {', '.join(KINDS)}"
            )

    def num_rows(self, split: Split) -> int | None:
        return len(_questions(self.digits, self.terms, split)) if self._tiny else None

    def row(self, split: Split, index: int) -> Example:
        if self._tiny:
            questions = _questions(self.digits, self.terms, split)
            if not 0 <= index < len(questions):
                raise ValueError(f"arithmetic: row {index} of {split}; there are {len(questions)}; use more digits or terms")
            return self._example(questions[index])
        chance = generator("arithmetic", self.digits, self.terms, split, index)
        while True:
            question = _question([chance.randrange(_lowest(self.digits), 10**self.digits) for _ in range(self.terms)])
            if split_of(question) == split:
                return self._example(question)

    def _example(self, question: str) -> Example:
        chance = generator("arithmetic", "shown", question)
        return Example(question, (demonstrate(self.shown, question, chance),) if self.shown else (), {"answer": _total(question)})

    @property
    def _tiny(self) -> bool:
        return (10**self.digits - _lowest(self.digits)) ** self.terms <= TINY


def demonstrate(kind: str, question: str, chance: Random) -> str:
    """An answer of one of the kinds above: worked, slip, lazy, guess or direct."""
    answer = _total(question)
    match kind:
        case "worked":
            return _work(question)
        case "slip":
            num_columns = max(len(str(number)) for number in _numbers(question))
            return _work(question, slip_at=chance.randrange(num_columns), slip_by=chance.choice((-1, 1)))
        case "lazy":
            return f"<think></think>{answer}"
        case "guess":
            return f"<think></think>{_misread(answer, chance)}"
        case "direct":
            return answer
    raise ValueError(f"demonstrate: kind {kind!r}; allowed: {', '.join(KINDS)}")


def _misread(answer: str, chance: Random) -> str:
    place = chance.randrange(len(answer))
    lowest = 1 if place == 0 and len(answer) > 1 else 0
    digit = chance.choice([digit for digit in range(lowest, 10) if str(digit) != answer[place]])
    return f"{answer[:place]}{digit}{answer[place + 1 :]}"


def _work(question: str, slip_at: int | None = None, slip_by: int = 0) -> str:
    """Column by column. What follows a slip is carried from it."""
    carry, steps, answer = 0, [], ""
    columns = itertools.zip_longest(*(reversed(str(number)) for number in _numbers(question)), fillvalue="0")
    for place, digits in enumerate(columns):
        added = "+".join(digits) + (f"+{carry}" if carry else "")
        result = abs(sum(map(int, digits)) + carry + (slip_by if place == slip_at else 0))  # one below 0 is 1: wrong as well
        steps.append(f"{added}={result}")
        answer, carry = f"{result % 10}{answer}", result // 10
    return f"<think>{' '.join(steps)}</think>{int(f'{carry}{answer}')}"


def _total(question: str) -> str:
    return str(sum(_numbers(question)))


def _question(numbers: list[int] | tuple[int, ...]) -> str:
    return "+".join(map(str, numbers)) + "="


def _numbers(question: str) -> list[int]:
    return [int(number) for number in question.removesuffix("=").split("+")]


def _lowest(digits: int) -> int:
    return 0 if digits == 1 else 10 ** (digits - 1)


@cache
def _questions(digits: int, terms: int, split: Split) -> tuple[str, ...]:
    numbers = range(_lowest(digits), 10**digits)
    questions = [_question(chosen) for chosen in itertools.product(numbers, repeat=terms)]
    mine = [question for question in questions if split_of(question) == split]
    generator("arithmetic", digits, terms, split).shuffle(mine)
    return tuple(mine)
