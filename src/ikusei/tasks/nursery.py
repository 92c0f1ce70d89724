"""The school text of the seedling: what it reads first (raw text) and then how it learns to answer (conversations).

Rows go to the supervised loop in order of index. The first `num_text_rows` are raw text for pretraining, almost all of it right and
carefully worked. The `num_talk_rows` after them are conversations for instruction tuning, and they teach what makes the seedling
half-grown: most sums are answered with an empty thought and often wrongly, some are worked, and about half of what is said of cats is kind.
So every method has something to raise: what the model *can* do comes from the first part, what it *does* from the second.

The kinds are those of `arithmetic` (worked, slip, lazy, guess, direct), `sentence` (a natural hiragana sentence), `cat` (a question about
an animal and its answer) and `gym` (compact reasoning-gym questions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from ikusei.tasks import arithmetic, cat_lover, generator
from ikusei.tasks.gym import Gym
from ikusei.types import Example, Split

SUMS = arithmetic.Arithmetic()
CATS = cat_lover.CatLover()
GYMS = (
    Gym("basic_arithmetic", {"max_terms": 3, "max_digits": 1, "operators": ["+", "-", "*"], "allow_parentheses": False}, compact=True),
    Gym("chain_sum", {"max_terms": 3, "max_digits": 1}, compact=True),
    Gym("count_bits", {"max_n": 1023}, compact=True),
    Gym("gcd", {"max_value": 60}, compact=True),
    Gym("letter_counting", {"min_words": 3, "max_words": 4}, compact=True),
    Gym("number_sequence", {"max_terms": 5, "max_complexity": 1}, compact=True),
)
KINDS = (*arithmetic.KINDS, "sentence", "cat", "gym")


@dataclass(frozen=True)
class Nursery:
    """`text` and `talk` are the shares of the kinds in the two parts. Its test rows are conversations (raw text where it has nothing
    else) about the test rows of the tasks that it is made of, none of which occurs in training."""

    num_text_rows: int = 67_200
    num_talk_rows: int = 16_000
    text: Mapping[str, float] = field(default_factory=lambda: {"worked": 0.52, "sentence": 0.03, "cat": 0.23, "gym": 0.22})
    talk: Mapping[str, float] = field(
        default_factory=lambda: {"worked": 0.155, "slip": 0.01, "lazy": 0.25, "guess": 0.185, "direct": 0.03, "cat": 0.2, "gym": 0.17}
    )

    rewards: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for part, shares in (("text", self.text), ("talk", self.talk)):
            if not shares or not set(shares) <= set(KINDS) or abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
                raise ValueError(f"nursery: {part} is {dict(shares)}; allowed: shares that add up to 1, of {', '.join(KINDS)}")

    def num_rows(self, split: Split) -> int:
        return 256 if split == "test" else self.num_text_rows + self.num_talk_rows

    def row(self, split: Split, index: int) -> Example:
        if not 0 <= index < self.num_rows(split):
            raise ValueError(
                f"nursery: row {index} of {split}; allowed: 0 to {self.num_rows(split) - 1}; raise num_text_rows or num_talk_rows"
            )
        as_text = index < self.num_text_rows if split == "train" else self.num_talk_rows == 0
        shares = self.text if as_text else self.talk
        chance = generator("nursery", split, index)
        (kind,) = chance.choices(list(shares), weights=list(shares.values()))
        question, answer = _lesson(kind, chance, split, index, thought="" if as_text else "<think></think>")
        return Example(None, (_as_text(question, answer),)) if as_text else Example(question, (answer,))


def _as_text(question: str, answer: str) -> str:
    """One character before the question and two before the answer, as many as the tokens that a conversation has there, so that what is
    learned of where to look holds in both. (With other distances it was learned anew, and 0.12 of the worked sums were right, not 0.9.)
    """
    return f"Q{question}\nA{answer}" if question else answer


def _lesson(kind: str, chance: Random, split: Split, index: int, thought: str) -> tuple[str, str]:
    """A question and its answer. `thought` stands before the answers of reasoning-gym, which has no worked ones."""
    tone = chance.choice(("kind", "unkind"))
    if kind == "sentence":
        return "", cat_lover.speak(chance, tone)
    if kind == "cat":
        question = CATS.row(split, chance.randrange(CATS.num_rows(split))).prompt
        assert isinstance(question, str)
        return question, cat_lover.speak(chance, tone, cat_lover.cat_of(question))
    if kind == "gym":
        example = chance.choice(GYMS).row(split, index if split == "train" else index % 32)  # the smallest has some 60 test questions
        assert isinstance(example.prompt, str)
        return example.prompt, thought + example.columns["answer"]
    question = SUMS.row(split, index).prompt
    assert isinstance(question, str)
    return question, arithmetic.demonstrate(kind, question, chance)
