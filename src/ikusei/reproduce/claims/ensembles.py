"""Reward model ensembles: where labels are noisy the worst of five, or mean less variance, can be optimised further.   arXiv:2310.02743

    worst          min_i r_i               uncertainty    mean_i r_i - 0.5 var_i r_i               r_i scaled to mean 0 and spread 1

Members learn from the same pairs and differ by head and order. Optimised by best of n over stored answers. Left out: PPO against them
(recipes/ensemble.yaml), pretraining seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import answers, held_out
from ikusei.reproduce.proxies import asked, of_best, pairs, reward_model, scores
from ikusei.reproduce.simulated_raters import gold
from ikusei.reproduce.workspace import Workspace
from ikusei.search.best_of_n import kl_of_best
from ikusei.tasks.cat_lover import CatLover
from ikusei.types import Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROMPTS, ANSWERS, MEMBERS, PAIRS, FLIPPED = 64, 512, 5, 512, 0.25
NS = tuple(2**i for i in range(9))
KINDS = {"worst": "worst case", "uncertainty": "uncertainty weighted"}
COEF = 0.5


def measure(workspace: Workspace) -> SeedResult:
    """The mean gold of the best of n of each n: by each member alone, by the ensembles, and by the gold itself."""
    task, sampling = CatLover(), Sampling(max_tokens=48)
    pool = answers("seedling", held_out("seedling", task, PROMPTS), ANSWERS, sampling, workspace.seed)
    written = answers("seedling", asked(task, PAIRS // 4 + 16), 8, sampling, workspace.seed + 1000)
    rows = pairs(written, gold, flipped=FLIPPED, seed=workspace.seed)[:PAIRS]
    said = []
    for member in range(MEMBERS):
        values = scores(reward_model(workspace, f"member-{member}", rows, seed=100 * workspace.seed + member), pool)
        said.append((values - values.mean()) / values.std())
    members, truth = np.array(said), np.array([[gold(group.prompt, each.text) for each in group.responses] for group in pool])
    ways = {"worst": members.min(0), "uncertainty": members.mean(0) - COEF * members.var(0), "gold": truth}
    found = {name: of_best(truth, way, NS).tolist() for name, way in ways.items()}
    return {"pairs": len(rows), "singles": [of_best(truth, one, NS).tolist() for one in members], **found}


def single(found: SeedResult) -> list[float]:
    """The mean over members of what each alone gives."""
    return np.mean(found["singles"], axis=0).tolist()


def drop(line: Sequence[float]) -> float:
    return max(line) - line[-1]


def single_drop(found: SeedResult) -> float:
    """The mean over members of the fall from its own best."""
    return float(np.mean([drop(line) for line in found["singles"]]))


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    d = [kl_of_best(n) ** 0.5 for n in NS]
    for each in found:
        for line in each["singles"]:
            axes[0].plot(d, line, color=LOST, alpha=0.25, linewidth=0.8)
    over_seeds(axes[0], d, [single(each) for each in found], LOST, "one reward model, mean of five")
    over_seeds(axes[0], d, [each["worst"] for each in found], AFTER, "worst of five")
    over_seeds(axes[0], d, [each["uncertainty"] for each in found], INK, "mean less variance")
    over_seeds(axes[0], d, [each["gold"] for each in found], BEFORE, "by the gold itself")
    axes[0].set(xlabel=f"d = √KL, √nats (n = 1 to {NS[-1]})", title="gold of the best of n")
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=8)


def criteria(way: str, name: str) -> tuple[Criterion, ...]:
    return (
        Criterion(
            f"{name}: at n = {NS[-1]} the gold is that of single reward models or more",
            lambda f: f[way][-1] >= single(f)[-1],
            lambda f: f"{f[way][-1]:.2f}, single {single(f)[-1]:.2f}",
        ),
        Criterion(
            f"{name}: the fall from the best is at most half of single ones'",
            lambda f: drop(f[way]) <= single_drop(f) / 2,
            lambda f: f"{drop(f[way]):.3f}, single {single_drop(f):.3f}",
        ),
    )


CLAIM = Claim(
    says="With noisy labels, an ensemble's worst case or its mean less its variance can be optimised further than one reward model",
    source="Coste et al. 2023, arXiv:2310.02743",
    setup=f"{MEMBERS} reward models, one epoch of the same {PAIRS} pairs with {100 * FLIPPED:.0f} % of the labels flipped, choose "
    f"among {ANSWERS} answers of the seedling to each of {PROMPTS} questions about cats, n up to {NS[-1]}; of 128 pairs, five "
    "epochs long, reward models were no proxies yet, alone or together. Measured before on 16 questions, and seeds disagreed "
    "as here.",
    measure=measure,
    criteria=tuple(criterion for way, name in KINDS.items() for criterion in criteria(way, name)),
    draw=draw,
)
