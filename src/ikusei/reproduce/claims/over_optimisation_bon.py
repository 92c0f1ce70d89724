"""Over-optimisation by best of n: a learned proxy rises without end, the gold rises and falls, and by a law.   arXiv:2210.10760

    gold(d) - gold(0) = d (alpha - beta d)         d = sqrt(KL),  KL = log n - (n - 1) / n

One proxy can be exploited: it learned from people in a hurry, who like length (people.py). The others learned from the gold, from few
pairs to many. Left out: reward
models of several sizes, and noise in the labels (ensembles.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import answers, held_out
from ikusei.reproduce.proxies import asked, kl_of_best, law, of_best, pairs, reward_model, scores
from ikusei.reproduce.simulated_raters import ENOUGH, gold, hurried
from ikusei.reproduce.workspace import Workspace
from ikusei.search.best_of_n import kl_of_best as formula
from ikusei.tasks.cat_lover import CatLover
from ikusei.types import Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROMPTS, ANSWERS = 64, 512
SIZES = (256, 512, 1024)  # pairs; of 64 a reward model was hardly a proxy yet
HURRIED = 1024
NS = tuple(2**i for i in range(9))
KL_AT = 16  # a small share of the answers, so that their ranks tell
SAMPLING = Sampling(max_tokens=48)


def measure(workspace: Workspace) -> SeedResult:
    """Of each proxy the mean gold and its own mean word, of the best of n of each n."""
    task = CatLover()
    pool = answers("seedling", held_out("seedling", task, PROMPTS), ANSWERS, SAMPLING, workspace.seed)
    written = answers("seedling", asked(task, SIZES[-1] // 4 + 32), 8, SAMPLING, workspace.seed + 1000)
    every, hasty = pairs(written, gold, seed=workspace.seed), pairs(written, hurried, seed=workspace.seed)
    truth = np.array([[gold(group.prompt, response.text) for response in group.responses] for group in pool])
    logps = np.array([[math.fsum(response.logprobs or ()) for response in group.responses] for group in pool])
    proxies = {f"{size}": every[:size] for size in SIZES} | {"hurried": hasty[:HURRIED]}
    found: dict[str, Any] = {}
    said = truth
    for name, rows in proxies.items():
        said = scores(reward_model(workspace, f"proxy-{name}", rows), pool)
        own = of_best((said - said.mean()) / said.std(), said, NS).tolist()
        found[name] = {"pairs": len(rows), "gold": of_best(truth, said, NS).tolist(), "own": own}
    return {"proxies": found, "best": of_best(truth, truth, NS).tolist(), "kl": kl_of_best(said, logps, KL_AT)}


def far() -> np.ndarray:
    return np.sqrt([formula(n) for n in NS])


def fits(found: SeedResult) -> dict[str, float]:
    """R^2 of the law, of each proxy."""
    return {name: law(far(), np.array(each["gold"]) - each["gold"][0])[2] for name, each in found["proxies"].items()}


def at_the_end(found: SeedResult) -> list[float]:
    return [found["proxies"][f"{size}"]["gold"][-1] for size in SIZES]


def rising(values: Sequence[float]) -> int:
    return sum(later > one for one, later in pairwise(values))


def peak(found: SeedResult) -> int:
    """The n at which the exploited proxy's gold is best."""
    return NS[int(np.argmax(found["proxies"]["hurried"]["gold"]))]


def lost(found: SeedResult) -> float:
    """How far the gold has fallen from its best, at the last n."""
    line = found["proxies"]["hurried"]["gold"]
    return max(line) - line[-1]


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    d = far().tolist()
    over_seeds(axes[0], d, [each["proxies"]["hurried"]["own"] for each in found], LOST, "the proxy's own word")
    gained = [[value - each["proxies"]["hurried"]["gold"][0] for value in each["proxies"]["hurried"]["gold"]] for each in found]
    over_seeds(axes[0], d, gained, AFTER, "gold")
    alpha, beta, _ = law(far(), np.mean(gained, axis=0))
    axes[0].plot(d, [x * (alpha - beta * x) for x in d], color=INK, linewidth=0.9, linestyle=(0, (3, 3)), label="law")
    axes[0].axhline(0, color=BEFORE, linewidth=0.9)
    axes[0].set(xlabel="d = √KL, √nats", title="a proxy of people in a hurry")
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=8)
    over_seeds(axes[1], SIZES, [at_the_end(each) for each in found], AFTER, f"best of {NS[-1]} by the proxy")
    for line, label in ((-1, f"by the gold, best of {NS[-1]}"), (0, "one answer")):
        level = float(np.mean([each["best"][line] for each in found]))
        axes[1].axhline(level, color=BEFORE, linewidth=0.9, linestyle="-" if line else (0, (3, 3)), label=label)
    axes[1].set(xscale="log", xlabel="pairs that the proxy learned from", title="gold, by the proxy's data")
    axes[1].set_xticks(SIZES, [str(size) for size in SIZES])
    axes[1].minorticks_off()
    axes[1].legend(frameon=False, labelcolor=INK, fontsize=8)


CLAIM = Claim(
    says="Choosing the best of n by a learned proxy, the proxy rises while the gold rises and then falls, as d(α - βd); more data helps",
    source="Gao, Schulman and Hilton 2022, arXiv:2210.10760",
    setup=f"{ANSWERS} answers of the seedling to each of {PROMPTS} held-out questions about cats, n up to {NS[-1]} by the unbiased "
    f"estimate. The gold is a formula (kindness, and detail up to {ENOUGH} characters); proxies are reward models, one epoch of "
    f"{SIZES[0]} to {SIZES[-1]} pairs; that to be exploited learned from {HURRIED} pairs of people in a hurry, who do not mind "
    "length. The gold's weights were chosen on the pilot so that its peak lies inside; in four setups before, it fell from the "
    "start or never, and fewer pairs than these gave proxies whose law fitted worse (R² .94). On 16 questions, measured "
    "before, it was .50 to .98: seeds differ by how their proxies were trained, and not by the questions.",
    measure=measure,
    criteria=(
        Criterion(
            "the exploited proxy's own word rises with every n",
            lambda f: rising(f["proxies"]["hurried"]["own"]) == len(NS) - 1,
            lambda f: f"{f['proxies']['hurried']['own'][-1]:.1f} σ",
        ),
        Criterion(
            "its gold is best at neither the first n nor the last",
            lambda f: NS[0] < peak(f) < NS[-1],
            lambda f: f"n = {peak(f)}; {lost(f):.2f} lower at {NS[-1]}",
        ),
        Criterion(
            "the law fits the gold of every proxy with R² of .98 or more",
            lambda f: min(fits(f).values()) >= 0.98,
            lambda f: f"least {min(fits(f).values()):.3f}",
        ),
        Criterion(
            f"every doubling of the pairs raises the gold at n = {NS[-1]}",
            lambda f: rising(at_the_end(f)) == len(SIZES) - 1,
            lambda f: " → ".join(f"{value:.2f}" for value in at_the_end(f)),
        ),
        Criterion(
            f"the KL by the answers' probabilities is within 5 % of log n - (n - 1)/n at n = {KL_AT}",
            lambda f: abs(f["kl"] / formula(KL_AT) - 1) <= 0.05,
            lambda f: f"{f['kl']:.3f}, by the formula {formula(KL_AT):.3f}",
        ),
    ),
    draw=draw,
    panels=2,
)
