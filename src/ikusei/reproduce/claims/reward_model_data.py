"""Reward models learn more from more rankings; all pairs of a ranking are one element, for shuffled they are learned by heart.

    L(one element) = mean over the pairs i > j of a ranking of -log sigmoid(r_i - r_j)         arXiv:2203.02155, equation 1

Shuffled, each answer is updated on K - 1 times an epoch. People here are unsure: they rank by the gold and a noise of their own. Left out:
reward models of several sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import answers, held_out
from ikusei.reproduce.proxies import asked, reward_model, scores
from ikusei.reproduce.simulated_raters import gold
from ikusei.reproduce.workspace import Workspace
from ikusei.tasks.cat_lover import CatLover
from ikusei.types import Group, Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

K, UNSURE = 6, 1.0  # answers of a ranking; spread of a person's noise, where the gold's own is about as large
SIZES = (48, 96, 192, 384)  # rankings
STEPS, BATCH = 144, 8
COMPARED, HELD_OUT = 384, 100  # rankings
FEW = 2  # rankings an update where these are compared with their pairs


def measure(workspace: Workspace) -> SeedResult:
    """Held-out accuracy, against the gold, by number of rankings; and of one epoch, grouped and shuffled, the held-out loss."""
    task, sampling, chance = CatLover(), Sampling(max_tokens=48), Random(workspace.seed)
    rankings = [ranked(group, chance) for group in answers("seedling", asked(task, SIZES[-1]), K, sampling, workspace.seed + 1000)]
    test = answers("seedling", held_out("seedling", task, HELD_OUT), K, sampling, workspace.seed)
    truth = [[gold(group.prompt, each.text) for each in group.responses] for group in test]
    unsure = [[value + chance.gauss(0, UNSURE) for value in row] for row in truth]
    plain: dict[str, Any] = {"normalise": {"num_prompts": 0}}
    sizes = {}
    for size in SIZES:
        model = reward_model(workspace, f"rankings-{size}", rankings[:size], **plain, steps=STEPS, examples_per_step=BATCH)
        sizes[f"{size}"] = judged(model, test, truth)["accuracy"]
    rows = [pair for ranking in rankings[:COMPARED] for pair in split(ranking)]
    chance.shuffle(rows)
    steps, pairs = COMPARED // FEW, FEW * K * (K - 1) // 2
    grouped = reward_model(workspace, "grouped", rankings[:COMPARED], **plain, steps=steps, examples_per_step=FEW)
    shuffled = reward_model(workspace, "shuffled", rows, **plain, steps=len(rows) // pairs, examples_per_step=pairs)
    epoch = {name: judged(model, test, unsure) for name, model in (("grouped", grouped), ("shuffled", shuffled))}
    return {"sizes": sizes, "epoch": epoch, "people": float(np.mean(agreement(truth, unsure)))}


def ranked(group: Group, chance: Random) -> dict[str, Any]:
    """The row of a person's ranking: each different answer that says something, the best first."""
    texts = {each.text: gold(group.prompt, each.text) + chance.gauss(0, UNSURE) for each in group.responses if each.text.strip()}
    best_first = sorted(texts, key=texts.__getitem__, reverse=True)
    return {"prompt": group.prompt.asked, "responses": best_first, "ranking": list(range(1, len(best_first) + 1))}


def split(ranking: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pair of a ranking as a row of its own."""
    return [{"prompt": ranking["prompt"], "chosen": one, "rejected": other} for one, other in combinations(ranking["responses"], 2)]


def agreement(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[float]:
    """Of every two answers to one prompt that both tell apart: 1 where in the same order."""
    return [
        float((a[i] > a[j]) == (b[i] > b[j]))
        for a, b in zip(one, other, strict=True)
        for i, j in combinations(range(len(a)), 2)
        if a[i] != a[j] and b[i] != b[j]
    ]


def judged(model: Path, test: Sequence[Group], wanted: Sequence[Sequence[float]]) -> dict[str, float]:
    """Accuracy and loss on every pair of the test rankings."""
    said = scores(model, test).tolist()
    ahead = [
        (r[i] - r[j]) * np.sign(w[i] - w[j])
        for r, w in zip(said, wanted, strict=True)
        for i, j in combinations(range(K), 2)
        if w[i] != w[j]
    ]
    return {"accuracy": float(np.mean(agreement(wanted, said))), "loss": float(np.mean(np.logaddexp(0, -np.array(ahead))))}


def rank_correlation(found: SeedResult) -> float:
    """Spearman's, of size and accuracy."""
    order = np.argsort(np.argsort([found["sizes"][f"{size}"] for size in SIZES]))
    return float(np.corrcoef(range(len(SIZES)), order)[0, 1])


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    over_seeds(axes[0], SIZES, [[each["sizes"][f"{size}"] for size in SIZES] for each in found], AFTER, "reward model")
    axes[0].axhline(float(np.mean([each["people"] for each in found])), color=INK, linewidth=0.9, linestyle=(0, (3, 3)), label="one person")
    axes[0].axhline(0.5, color=BEFORE, linewidth=0.9, label="chance")
    axes[0].set(xscale="log", xlabel="rankings", title="held-out pairs in the gold's order")
    axes[0].set_xticks(SIZES, [str(size) for size in SIZES])
    axes[0].minorticks_off()
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=8)
    for place, (name, colour) in enumerate((("grouped", AFTER), ("shuffled", LOST))):
        losses = [each["epoch"][name]["loss"] for each in found]
        axes[1].plot([place] * len(losses), losses, "o", color=colour, markersize=5)
        axes[1].plot([place - 0.2, place + 0.2], [np.mean(losses)] * 2, color=colour, linewidth=1.6)
    axes[1].axhline(float(np.log(2)), color=BEFORE, linewidth=0.9, label="no opinion, log 2")
    axes[1].set_xticks((0, 1), ("a ranking is one element", "pairs shuffled"))
    axes[1].set(xlim=(-0.6, 1.6), title="held-out loss after one epoch, nats")
    axes[1].legend(frameon=False, labelcolor=INK, fontsize=8)


CLAIM = Claim(
    says="A reward model becomes more accurate with more rankings, and shuffling the pairs of a ranking makes it overfit within one epoch",
    source="Ouyang et al. 2022, arXiv:2203.02155; Stiennon et al. 2020, arXiv:2009.01325",
    setup=f"Rankings of {K} of the seedling's answers about cats by people who judge with noise; {STEPS} updates of {BATCH} rankings "
    f"from {SIZES[0]} to {SIZES[-1]} of them; one epoch of {COMPARED} rankings, {FEW} an update, and of their pairs in any "
    f"order, as many an update; {HELD_OUT} held-out questions. Measured before with 24 updates of 24 to 192 rankings: accuracy "
    "rose in one seed of three; and with 8 rankings or 8 pairs an update, of which the pairs got 15 times as many updates: "
    "they lost less in every seed.",
    measure=measure,
    criteria=(
        Criterion(
            "held-out accuracy rises with the number of rankings: Spearman .9 or more",
            lambda f: rank_correlation(f) >= 0.9,
            lambda f: f"{rank_correlation(f):.1f}: " + ", ".join(f"{f['sizes'][f'{size}']:.3f}" for size in SIZES),
        ),
        Criterion(
            "after one epoch the held-out loss of grouped rankings is at most that of shuffled pairs",
            lambda f: f["epoch"]["grouped"]["loss"] <= f["epoch"]["shuffled"]["loss"],
            lambda f: f"{f['epoch']['grouped']['loss']:.3f} and {f['epoch']['shuffled']['loss']:.3f}",
        ),
    ),
    draw=draw,
    panels=2,
)
