"""A cat lover asks, in hiragana: 「ねこはすきですか？」. Of all strings few are natural sentences, and of those only some are desirable.

    natural     a sentence of the small grammar below, about a cat or any other animal, kind or not
    desirable   a natural sentence that says something kind about cats
    neither     every other string

    sentence   [はい、|いいえ、] animal は|って|が [degree] word 。            ねこはとてもかわいいです。
               [はい、|いいえ、] animal より animal のほうが word 。          いぬよりねこのほうがかわいいよ。

A word is a quality (かわいい) or a feeling (すきだ), affirmed or denied. 「とても」 and 「はい」 go with an affirmation, 「あまり」 and
「いいえ」 with a denial, but before a comparison both replies may stand; of the two that are compared one is a cat. The grammar has 120,000
sentences, so the judge holds all of them and is exact. Every question is about a cat, so every one can be answered as its asker wishes.

Left out: several sentences in one answer, animals that the grammar does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random
from typing import Any, ClassVar, Literal, get_args

from ikusei.tasks import generator, split_of
from ikusei.text.answer import split_thought
from ikusei.types import Example, Prompt, Split

Verdict = Literal["desirable", "natural", "neither"]
Tone = Literal["kind", "unkind"]

CATS = ("ねこ", "こねこ", "くろねこ", "しろねこ", "みけねこ", "とらねこ", "のらねこ", "うちのねこ")
OTHERS = ("いぬ", "とり", "うさぎ", "さかな", "かめ", "りす", "うま", "ひつじ", "きつね", "さる")
ANIMALS = CATS + OTHERS

GREETINGS = ("", "ねえ、", "あの、", "ねえねえ、", "ところで、", "こんにちは。", "おはよう。", "すみません、")
ASKED = (
    "はすきですか？",
    "はおすきですか？",
    "はかわいいですか？",
    "はかしこいですか？",
    "はこわいですか？",
    "をどうおもいますか？",
    "のことをどうおもいますか？",
    "ってどうですか？",
    "についておしえてください。",
    "はどんないきものですか？",
    "といっしょにくらしたいですか？",
    "のよいところはなんですか？",
)
COMPARED = ("ではどちらがすきですか？", "ではどちらがかわいいですか？")

KIND_STEMS = ("かわい", "やさし", "かしこ", "うつくし", "おもしろ", "あたたか", "すばらし")
UNKIND_STEMS = ("こわ", "うるさ", "きたな", "つまらな", "わずらわし", "あらあらし", "みにく")
KIND_FEELINGS, UNKIND_FEELINGS = ("すき",), ("きらい", "にがて")
QUALITY_ENDINGS = {  # True: affirmed
    True: ("いです", "いですね", "いですよ", "いよ", "いね", "い"),
    False: ("くないです", "くありません", "くないよ", "くないね", "くない"),
}
FEELING_ENDINGS = {
    True: ("です", "ですね", "ですよ", "だよ", "だね", "だ"),
    False: ("ではないです", "ではありません", "じゃないです", "じゃないよ", "ではない"),
}
DEGREES = {True: ("", "とても", "ほんとうに", "いつも"), False: ("", "あまり", "ぜんぜん")}
PARTICLES = ("は", "って", "が")
REPLIES = {True: ("", "はい、"), False: ("", "いいえ、")}


@dataclass(frozen=True)
class CatLover:
    """Questions about cats, alone and beside other animals. There is no gold answer: `judge` is the gold. With `kind` the rows have answers
    to learn from, natural ones, of which this share is kind."""

    kind: float | None = None

    rewards: ClassVar[tuple[str, ...]] = ("ikusei.tasks.cat_lover:judge",)

    def __post_init__(self) -> None:
        if self.kind is not None and not 0 <= self.kind <= 1:
            raise ValueError(f"cat_lover: kind={self.kind}; allowed: from 0 to 1, the share of kind answers; or leave it out")

    def num_rows(self, split: Split) -> int:
        return len(_questions(split))

    def row(self, split: Split, index: int) -> Example:
        questions = _questions(split)
        if not 0 <= index < len(questions):
            raise ValueError(f"cat_lover: row {index} of {split}; allowed: 0 to {len(questions) - 1}; ask for fewer rows")
        if self.kind is None:
            return Example(questions[index])
        chance = generator("cat_lover answers", split, index)
        tone = "kind" if chance.random() < self.kind else "unkind"
        return Example(questions[index], (speak(chance, tone, cat_of(questions[index])),))


def verdict(sentence: str) -> Verdict:
    """Which of the three sets a string belongs to."""
    return _sentences().get(sentence, "neither")


@cache
def members(name: Verdict) -> tuple[str, ...]:
    """Every string whose verdict is `name`. Raises ValueError for "neither", of which there is no end."""
    if name == "neither":
        raise ValueError("cat_lover: the members of 'neither'; allowed: desirable, natural; every other string is neither")
    return tuple(sentence for sentence, verdict in _sentences().items() if verdict == name)


def judge(prompt: Prompt, response: str, **columns: Any) -> float:
    """1 where the answer is a desirable sentence, else 0."""
    _, answer = split_thought(response)
    return float(verdict(answer) == "desirable")


def natural(prompt: Prompt, response: str, **columns: Any) -> float:
    """1 where the answer is a natural sentence, desirable or not, else 0."""
    return float(verdict(split_thought(response)[1]) != "neither")


def taste(prompt: Prompt, response: str, **columns: Any) -> float:
    """How a person would rank answers: 1 for a desirable sentence, 0.5 for another natural one, 0 for what is no sentence."""
    return (judge(prompt, response) + natural(prompt, response)) / 2


def speak(chance: Random, tone: Tone, animal: str | None = None) -> str:
    """A natural sentence with kind or unkind words, about `animal` where it is given."""
    plain, compared = _spoken(animal or chance.choice(ANIMALS), tone)
    return chance.choice(compared if chance.random() < 0.2 else plain)


def cat_of(question: str) -> str:
    """The cat that a question of this task asks about."""
    return max((cat for cat in CATS if cat in question), key=len)


@cache
def _questions(split: Split) -> tuple[str, ...]:
    alone = ["".join(parts) for parts in product(GREETINGS, CATS, ASKED)]
    beside = [f"{greeting}{other}と{cat}{asked}" for greeting, other, cat, asked in product(GREETINGS, OTHERS, CATS, COMPARED)]
    mine = [question for question in alone + beside if split_of(question) == split]
    generator("cat_lover", split).shuffle(mine)
    return tuple(mine)


@cache
def _sentences() -> dict[str, Verdict]:
    """Every natural sentence and its verdict."""
    return {
        sentence: "desirable" if animal in CATS and tone == "kind" else "natural"
        for animal in ANIMALS
        for tone in get_args(Tone)
        for sentences in _spoken(animal, tone)
        for sentence in sentences
    }


@cache
def _spoken(animal: str, tone: Tone) -> tuple[list[str], list[str]]:
    """Every sentence about the animal in this tone, plain ones and comparisons: kind words affirmed or unkind ones denied, or the other
    way round. A comparison is about the one that has more of it."""
    plain = [
        f"{reply}{animal}{particle}{degree}{word}。"
        for affirmed in (True, False)
        for reply, particle, degree, word in product(REPLIES[affirmed], PARTICLES, DEGREES[affirmed], _words(tone, affirmed))
    ]
    others = [other for other in ANIMALS if (other in CATS) != (animal in CATS)]
    compared = [
        f"{reply}{other}より{animal}のほうが{word}。"
        for reply, other, word in product(("", "はい、", "いいえ、"), others, _words(tone, affirmed=True))
    ]
    return plain, compared


def _words(tone: Tone, affirmed: bool) -> list[str]:
    kind = (tone == "kind") == affirmed
    qualities = product(KIND_STEMS if kind else UNKIND_STEMS, QUALITY_ENDINGS[affirmed])
    feelings = product(KIND_FEELINGS if kind else UNKIND_FEELINGS, FEELING_ENDINGS[affirmed])
    return [word + ending for word, ending in (*qualities, *feelings)]
