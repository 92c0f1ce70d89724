"""Few-shot learning: the more worked examples stand in the prompt, the more is right, without any training.   arXiv:2005.14165

    b=3, k=3, d=7, a=?        of several ciphers only the examples say which one it is: one leaves some of them, four hardly any

A model that has read texts of several questions each can take it from the examples; one that has read each question in a text of its own
cannot, though it has read as many questions (the control). Left out: ciphers that no training text had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.stats import rankdata

from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.evaluate import EvalSettings
from ikusei.loops.few_shot import evaluate_with_shots
from ikusei.report.svg import AFTER, BEFORE, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import tiny_llama
from ikusei.reproduce.workspace import Workspace
from ikusei.run.find import find_model
from ikusei.samplers.load import load_sampler
from ikusei.tasks import generator
from ikusei.types import Example, Sampling, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS, SYMBOLS, OF_A_RULE = "abcdefghijkl", "0123456789AB", 4
NUM_RULES = 12
SHOTS = (0, 1, 2, 4, 8)
QUESTIONS = 9  # of a text: as many as the longest prompt has
STEPS, TEXTS = 300, 32
ASKED = 3  # times that each question of each rule is asked, after other examples
MODEL = tiny_llama(64, 192, 2, 128, initializer_range=0.08)


def cipher(seed: int, rule: int) -> dict[str, str]:
    """A symbol for each letter: each of the four symbols of a rule, which other rules have too, stands for three letters."""
    chance = generator("cipher", seed, rule)
    symbols = chance.sample(SYMBOLS, OF_A_RULE) * (len(LETTERS) // OF_A_RULE)
    chance.shuffle(symbols)
    return dict(zip(LETTERS, symbols, strict=True))


@dataclass(frozen=True)
class Ciphers:
    """Raw texts of `questions` questions each, about one of the ciphers."""

    questions: int
    seed: int
    texts: int

    rewards: ClassVar[tuple[str, ...]] = ()

    def num_rows(self, split: Split) -> int:
        return self.texts if split == "train" else 0

    def row(self, split: Split, index: int) -> Example:
        chance = generator("cipher text", self.seed, index)
        rule = cipher(self.seed, chance.randrange(NUM_RULES))
        return Example(None, ("\n\n".join(f"{letter}={rule[letter]}" for letter in chance.sample(LETTERS, self.questions)),))


@dataclass(frozen=True)
class Cipher:
    """The questions of one cipher: every letter."""

    seed: int
    rule: int

    rewards: ClassVar[tuple[str, ...]] = ("exact",)

    def num_rows(self, split: Split) -> int:
        return len(LETTERS)

    def row(self, split: Split, index: int) -> Example:
        return Example(LETTERS[index], columns={"answer": cipher(self.seed, self.rule)[LETTERS[index]]})


def measure(workspace: Workspace) -> SeedResult:
    """The share of right answers at each number of examples, for a model of long texts and for one of short ones."""
    return {
        "several": workspace.once("several-measured", partial(accuracy, read(workspace, "several", QUESTIONS, TEXTS), workspace.seed)),
        "one": workspace.once("one-measured", partial(accuracy, read(workspace, "one", 1, TEXTS * QUESTIONS), workspace.seed)),
    }


def read(workspace: Workspace, name: str, questions: int, texts: int) -> Path:
    """A model that has read so many questions a text."""
    recipe = {
        "model": MODEL,
        "task": {
            "name": "ikusei.reproduce.claims.few_shot:Ciphers",
            "questions": questions,
            "seed": workspace.seed,
            "texts": STEPS * texts,
        },
        "algorithm": "lm",
        "train": {"steps": STEPS, "examples_per_step": texts, "lr": 3e-3, "warmup_steps": 20, "min_lr": 3e-4, "save_every": STEPS},
        "eval": {"num_prompts": 0},
    }
    return workspace.train(name, recipe)


def accuracy(model: Path, seed: int) -> list[float]:
    """At each of SHOTS, over the questions of all rules."""
    sampler, found = load_sampler(find_model(str(model))), []
    settings = EvalSettings(len(LETTERS), 1, shots=SHOTS[1:], form="{prompt}=")
    with RewardWorkers([RewardSpec("exact", "exact")]) as workers:
        for number in range(ASKED * NUM_RULES):
            rows = Rows(Cipher(seed, number % NUM_RULES), sampler.tokenizer, number, sampler.context)
            results = evaluate_with_shots(sampler, rows, workers, settings, Sampling(top_k=1, max_tokens=1), seed).results
            found.append([results[f"{shots}-shot/pass@1" if shots else "pass@1"].value for shots in SHOTS])
    return [fmean(column) for column in zip(*found, strict=True)]


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    over_seeds(axes[0], range(len(SHOTS)), [each["several"] for each in found], AFTER, f"read {QUESTIONS} questions a text")
    over_seeds(axes[0], range(len(SHOTS)), [each["one"] for each in found], BEFORE, "read one question a text")
    axes[0].axhline(1 / len(SYMBOLS), color=INK, linewidth=0.8, linestyle=":", label="guessing")
    axes[0].set_xticks(range(len(SHOTS)), [str(shots) for shots in SHOTS])
    axes[0].set(xlabel="worked examples in the prompt", title="right answers, share", ylim=(0, 1.3))
    axes[0].legend(frameon=False, labelcolor=INK, loc="upper left")


def _rise(shares: Sequence[float]) -> float:
    return shares[-1] - shares[0]


def _spearman(shares: Sequence[float]) -> float:
    """The rank correlation of shots and shares."""
    return float(np.corrcoef(rankdata(SHOTS), rankdata(shares))[0, 1])


CLAIM = Claim(
    says="With more examples in the prompt more answers are right, though no weight changes",
    source="Brown et al. 2020, arXiv:2005.14165",
    setup=f"Llamas of 2 layers and width 64 from random weights, {STEPS} steps of {TEXTS * QUESTIONS} questions about {NUM_RULES} ciphers, "
    f"in texts of {QUESTIONS} or of one each. Tried before with ciphers that no training text had, of six letters and of four: right "
    "answers rose from 0.04 to 0.14 and from 0.02 to 0.10, for the models guessed among the digits that they saw.",
    measure=measure,
    criteria=(
        Criterion(
            f"at {SHOTS[-1]} examples at least 0.1 more than at none",
            lambda f: _rise(f["several"]) >= 0.1,
            lambda f: f"{f['several'][0]:.2f} → {f['several'][-1]:.2f}",
        ),
        Criterion(
            "right answers go with the number of examples: Spearman at least 0.8",
            lambda f: _spearman(f["several"]) >= 0.8,
            lambda f: f"{_spearman(f['several']):.2f}",
        ),
        Criterion(
            "the control does not rise by 0.1",
            lambda f: _rise(f["one"]) < 0.1,
            lambda f: f"{f['one'][0]:.2f} → {f['one'][-1]:.2f}",
        ),
    ),
    draw=draw,
)
