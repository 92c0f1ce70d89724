"""Over-optimisation by reinforcement learning: against a learned proxy, without a KL penalty, the gold rises and falls.   arXiv:2210.10760

    gold(d) - gold(0) = d (alpha - beta log d)         d = sqrt(KL(policy || start)), a response, of the run's own answers

The proxy is a reward model of people who like long answers (recipes/hacks/learned_proxy.yaml), which teaches sums to be worked out before
it teaches length alone. Left out: a sweep of KL penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from ikusei.registry import RECIPES
from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.proxies import law
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOLES = RECIPES / "hacks" / "holes.py"
STEPS, TENTH = 60, 6
LIKED, GOLD = {"path": f"{HOLES}:liked"}, {"path": "exact", "gold": True}
ROAD = {
    "model": "seedling",
    "task": {"name": "arithmetic", "digits": 3, "terms": 2},
    "sampling": {"max_tokens": 128},
    "eval": {"num_prompts": 0},
    "stages": [
        {
            "name": "pairs",
            "rewards": [LIKED],
            "sampling": {"max_tokens": 128, "temperature": 1.3},
            "collect": {"kind": "pairs", "num_prompts": 384, "num_responses": 6, "prompts_per_step": 96},
        },
        {
            "name": "reward",
            "task": {"name": "files", "path": "stage:pairs"},
            "algorithm": "bradley_terry",
            "train": {"steps": 40, "examples_per_step": 16, "lr": 1e-3, "lr_shape": "linear"},
        },
        {
            "name": "grpo",
            "model": "seedling",
            "rewards": [{"path": "learned", "settings": {"model": "stage:reward"}}, GOLD],
            "algorithm": {"name": "grpo", "kl_coef": 1e-9, "kl_estimator": "k1"},  # so small that it only measures
            "train": {"steps": STEPS, "prompts_per_step": 16, "num_responses": 8, "lr": 1e-4, "save_every": STEPS},
        },
    ],
}


def measure(workspace: Workspace) -> SeedResult:
    """Of each step: the proxy's word and the gold of its 128 answers, and their KL from the start in nats."""
    rows = read_run(workspace.train("road", ROAD) / "3-grpo").rows
    return {
        "proxy": [row["rewards/learned/mean"] for row in rows],
        "gold": [row["rewards/exact/mean"] for row in rows],
        "kl": [row["kl"] * row["completions/mean_length"] for row in rows],
    }


def smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Each with its neighbours: of 128 answers a step tells little."""
    half = width // 2
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def curve(found: SeedResult) -> tuple[np.ndarray, np.ndarray]:
    """(d, gold above the start's), smoothed. The first step's answers are the start's own."""
    line = smooth(found["gold"])
    return np.sqrt(np.maximum(smooth(found["kl"]), 0)), np.array(line) - found["gold"][0]


def fit(found: SeedResult) -> tuple[float, float, float]:
    return law(*curve(found), rl=True)


def best(found: SeedResult) -> int:
    """The step, from 1."""
    return int(np.argmax(smooth(found["gold"]))) + 1


def last(values: Sequence[float]) -> float:
    return fmean(values[-TENTH:])


def lost(found: SeedResult) -> float:
    """How far the gold has fallen from its best by the end, over what it had gained."""
    line = smooth(found["gold"])
    return (max(line) - last(found["gold"])) / max(max(line) - found["gold"][0], 1e-9)


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    steps = range(1, STEPS + 1)
    over_seeds(axes[0], steps, [each["proxy"] for each in found], LOST, "the proxy, σ at the start")
    over_seeds(
        axes[0], steps, [(np.array(each["gold"]) - each["gold"][0]).tolist() for each in found], AFTER, "gained in gold (share right)"
    )
    axes[0].axhline(0, color=BEFORE, linewidth=0.9)
    axes[0].set(xlabel="step", title="what is trained on, and what was meant")
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.65))
    for each in found:
        d, gain = curve(each)
        alpha, beta, _ = fit(each)
        axes[1].plot(d, gain, "o", color=AFTER, markersize=3)
        x = np.linspace(0.01, d.max(), 100)
        axes[1].plot(x, x * (alpha - beta * np.log(x)), color=INK, linewidth=0.9, linestyle=(0, (3, 3)))
    axes[1].axhline(0, color=BEFORE, linewidth=0.9)
    axes[1].set(xlabel="d = √KL, √nats", title="gold gained, and the law d(α - β log d)")


CLAIM = Claim(
    says="Under RL against a learned proxy the proxy rises while the gold rises and then falls, as d(α - β log d)",
    source="Gao, Schulman and Hilton 2022, arXiv:2210.10760",
    setup=f"GRPO from the seedling on sums of three digits, {STEPS} steps of 16 x 8 answers, no KL penalty, against a reward model of "
    "people who like long answers; the gold, whether the sum is right, never trains. Tried beforehand on questions about cats, with a gold "
    "that likes some length: there it fell from the start; and a rate twice as high, which ended early.",
    measure=measure,
    criteria=(
        Criterion(
            "the proxy's last tenth is a standard deviation or more above the start",
            lambda f: last(f["proxy"]) >= f["proxy"][0] + 1,
            lambda f: f"{f['proxy'][0]:.2f} → {last(f['proxy']):.2f}",
        ),
        Criterion(
            "the gold is best in between, and by the end half or more of its gain is lost",
            lambda f: TENTH < best(f) <= STEPS - TENTH and lost(f) >= 0.5,
            lambda f: f"best at step {best(f)}: {max(smooth(f['gold'])) - f['gold'][0]:+.2f}; {100 * lost(f):.0f} % of it lost",
        ),
        Criterion(
            "the law fits the gold with R² of .98 or more",
            lambda f: fit(f)[2] >= 0.98,
            lambda f: f"{fit(f)[2]:.3f}; KL to {max(f['kl']):.1f} nats",
        ),
    ),
    draw=draw,
    panels=2,
)
