"""Regularised best of n: held back by what the others say, it is better than best of n under a poor proxy.   arXiv:2404.01054 (RBoN-WD)

    argmax_i  proxy_i + alpha mean_j u(y_i, y_j)         proxy = rho z(gold) + sqrt(1 - rho^2) noise

u is 1 where two texts give the same answer: alpha without end is the majority. The overlap of letters serves badly here, for lazy answers,
which are wrong, are the most alike. Alpha is chosen on half of the prompts and the gain measured on the other half. Left out: the forms by
KL and by length (search/regularised.py has them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ikusei.report.svg import AFTER, BEFORE, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import answers, held_out
from ikusei.reproduce.workspace import Workspace
from ikusei.rewards.exact import exact
from ikusei.search.mbr import MBR, same_answer
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.types import Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROMPTS, ANSWERS, NOISES = 64, 32, 16
RHOS = (0.2, 0.5, 0.9)
ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # spreads of the proxy


def measure(workspace: Workspace) -> SeedResult:
    """By rho: accuracy at each alpha on the measured half, and of the alpha that the other half chose the gain over best of n."""
    pool = answers("seedling", held_out("seedling", Arithmetic(), PROMPTS), ANSWERS, Sampling(max_tokens=96), workspace.seed)
    right = np.array([[exact(group.prompt, each.text, **group.prompt.columns) for each in group.responses] for group in pool])
    alike = np.array([MBR(same_answer).values(group.responses) for group in pool])
    chance = np.random.default_rng(workspace.seed)
    gold = (right - right.mean()) / right.std()
    found = {}
    for rho in RHOS:
        proxies = rho * gold + (1 - rho**2) ** 0.5 * chance.standard_normal((NOISES, *gold.shape))
        picked = np.array([picks(proxies, alike, alpha, right) for alpha in ALPHAS])  # [alphas, prompts]
        choosing, measuring = picked[:, ::2].mean(1), picked[:, 1::2]
        best = int(choosing.argmax())
        gain = measuring[best] - measuring[0]
        found[f"{rho}"] = {
            "accuracy": measuring.mean(1).tolist(),
            "chosen": best,
            "gap": float(gain.mean()),
            "error": float(gain.std(ddof=1) / len(gain) ** 0.5),
        }
    return {"rhos": found, "one": float(right[1::2].mean()), "oracle": float(right[1::2].max(1).mean())}


def picks(proxies: np.ndarray, alike: np.ndarray, alpha: float, right: np.ndarray) -> np.ndarray:
    """[P] how often the chosen answer is right, over the draws of the noise. `proxies` is [draws, P, N]."""
    chosen = (proxies + alpha * alike).argmax(-1)
    return np.take_along_axis(right[None], chosen[..., None], axis=-1)[..., 0].mean(0)


def gaps(found: SeedResult) -> list[float]:
    return [found["rhos"][f"{rho}"]["gap"] for rho in RHOS]


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for rho, alpha in zip(RHOS, (1.0, 0.65, 0.35), strict=True):
        lines = np.array([each["rhos"][f"{rho}"]["accuracy"] for each in found])
        places = range(len(ALPHAS))
        axes[0].plot(places, lines.mean(0), color=AFTER, alpha=alpha, linewidth=1.6, marker="o", markersize=3, label=f"correlation {rho}")
    axes[0].set_xticks(range(len(ALPHAS)), [f"{alpha:g}" for alpha in ALPHAS])
    axes[0].axhline(float(np.mean([each["one"] for each in found])), color=BEFORE, linewidth=0.9, linestyle=(0, (3, 3)), label="one answer")
    axes[0].set(xlabel="α (0 is best of n), spreads of the proxy", ylim=(0, 1.03), title=f"share right, best of {ANSWERS}")
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=8, loc="lower left", ncols=2)
    over_seeds(axes[1], RHOS, [gaps(each) for each in found], AFTER)
    axes[1].axhline(0, color=BEFORE, linewidth=0.9)
    axes[1].set(xlabel="correlation of proxy and gold", title="gain of the chosen α over best of n")


def least_known(found: SeedResult) -> Mapping[str, float]:
    return found["rhos"][f"{RHOS[0]}"]


CLAIM = Claim(
    says="Best of n held back by agreement beats best of n where the proxy is poor, and the gain shrinks as the proxy becomes right",
    source="Jinnai et al. 2024, arXiv:2404.01054",
    setup=f"{ANSWERS} answers of the seedling to each of {PROMPTS} sums; the proxy is the gold mixed with noise to correlations of "
    f"{', '.join(map(str, RHOS))}; u is whether two give the same answer (by the overlap of letters, tried beforehand, nothing was "
    "gained); alpha is chosen on half of the prompts and measured on the others.",
    measure=measure,
    criteria=(
        Criterion(
            f"at a correlation of {RHOS[0]} the gain is above 0, by two standard errors",
            lambda f: least_known(f)["gap"] > 2 * least_known(f)["error"],
            lambda f: f"{least_known(f)['gap']:.3f} ± {least_known(f)['error']:.3f}",
        ),
        Criterion(
            "it shrinks with every rise of the correlation",
            lambda f: all(later < gap for gap, later in pairwise(gaps(f))),
            lambda f: " > ".join(f"{gap:.3f}" for gap in gaps(f)),
        ),
    ),
    draw=draw,
    panels=2,
    quick=True,
)
