"""A language model's loss: ln V before it has learned anything, and soon below what the pairs of neighbouring tokens alone tell.

first loss = ln V        where the initial weights are small, every token of the vocabulary of V is as likely
H(x_t | x_t-1) = -sum_{a,b} p(a, b) log p(b | a)        the bigram entropy of the training text, its end tokens included
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from ikusei.models.load import load_tokenizer
from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import logps, tiny_llama
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import read_run
from ikusei.tasks.nursery import Nursery
from ikusei.text.chat import continuation, render
from ikusei.types import Group, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = {"worked": 0.4, "cat": 0.4, "sentence": 0.2}
STEPS, ROWS = 240, 32
MODEL = tiny_llama(96, 256, 3, 128, initializer_range=0.02)


def measure(workspace: Workspace) -> SeedResult:
    """Losses in nats a token: of each step, on held-out rows, and the entropies of the text."""
    task = Nursery(STEPS * ROWS, 0, TEXT)
    recipe = {
        "model": MODEL,
        "task": {"name": "nursery", "num_text_rows": STEPS * ROWS, "num_talk_rows": 0, "text": TEXT},
        "algorithm": "lm",
        "policy": {"weight_decay": 0.1},
        "train": {"steps": STEPS, "examples_per_step": ROWS, "lr": 3e-3, "warmup_steps": 20, "min_lr": 3e-4, "save_every": STEPS},
        "eval": {"num_prompts": 0},
    }
    run = workspace.train("pretrain", recipe)
    tokenizer = load_tokenizer(str(run / "final"))
    train, test = texts(task, "train", STEPS * ROWS, tokenizer), texts(task, "test", 256, tokenizer)
    sequences = [[*group.prompt.tokens, *group.responses[0].tokens] for group in train]
    steps, losses = read_run(run).line("loss")
    return {
        "uniform": math.log(len(tokenizer)),
        "unigram": entropy((token,) for tokens in sequences for token in tokens[1:]),
        "bigram": entropy(pair for tokens in sequences for pair in pairwise(tokens)),
        "held_out": -sum(row[0] for row in logps(run, test)) / sum(len(group.responses[0].tokens) for group in test),
        "lines": {"step": steps, "loss": losses},
    }


def texts(task: Nursery, split: Split, count: int, tokenizer: PreTrainedTokenizerBase) -> list[Group]:
    """The first rows of a split, each a text after the token that separates texts."""
    rows = [task.row(split, index) for index in range(count)]
    prompts = [render(tokenizer, row) for row in rows]
    return [Group(prompt, (continuation(tokenizer, prompt, row.responses[0]),)) for prompt, row in zip(prompts, rows, strict=True)]


def entropy(seen: Iterable[tuple[int, ...]]) -> float:
    """Of the last of each tuple, given those before it, in nats."""
    counts = Counter(seen)
    contexts = Counter[tuple[int, ...]]()
    for each, count in counts.items():
        contexts[each[:-1]] += count
    return -sum(count * math.log(count / contexts[each[:-1]]) for each, count in counts.items()) / counts.total()


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    over_seeds(axes[0], found[0]["lines"]["step"], [each["lines"]["loss"] for each in found], AFTER, "training loss")
    for name, colour in (("uniform", BEFORE), ("unigram", INK), ("bigram", LOST)):
        axes[0].axhline(found[0][name], color=colour, linewidth=1, linestyle=":")
        label = "ln V" if name == "uniform" else f"{name} entropy"
        axes[0].text(STEPS, found[0][name] + 0.06, label, color=colour, ha="right", va="bottom")
    axes[0].plot([STEPS] * len(found), [each["held_out"] for each in found], "D", color=INK, markersize=4, label="on held-out rows")
    axes[0].set(xlabel="step", title="nats a token", ylim=(0, 7))
    axes[0].legend(frameon=False, labelcolor=INK, loc="upper center")


CLAIM = Claim(
    says="A language model's loss begins at ln V and falls below the bigram entropy of its text",
    source="Karpathy, nanoGPT; Shannon 1948",
    setup=f"A Llama of 3 layers and width 96 with a character tokenizer, weights of spread 0.02, {STEPS} steps of {ROWS} generated texts: "
    "worked sums and hiragana.",
    measure=measure,
    criteria=(
        Criterion(
            "the first loss is ln V within 0.05",
            lambda f: abs(f["lines"]["loss"][0] - f["uniform"]) <= 0.05,
            lambda f: f"{f['lines']['loss'][0]:.3f}, ln V {f['uniform']:.3f}",
        ),
        Criterion(
            "the loss on held-out rows ends below the bigram entropy",
            lambda f: f["held_out"] < f["bigram"],
            lambda f: f"{f['held_out']:.3f} < {f['bigram']:.3f}",
        ),
    ),
    draw=draw,
    quick=True,
)
