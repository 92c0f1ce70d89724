"""The crossing: reinforcement learning raises pass@1 and lowers pass@k at large k; what it answers the base already held likely.

    pass@k = E over prompts [1 - C(n-c, k) / C(n, k)]        c of n answers right

Against it stands the control: as many steps more of the base's own supervised learning lift the whole curve, with answers that the base
held unlikely.   Yue et al. 2025, arXiv:2504.13837

Left out: a stronger teacher (the paper's control is distillation, here it is more of the same right answers), other temperatures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ikusei.intervals import pass_at_k
from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.expressions import BASE_STEPS, ROWS, SAMPLING, Expressions, rewarded, shown
from ikusei.reproduce.measuring import answers, held_out, judged, logps
from ikusei.reproduce.workspace import Workspace
from ikusei.rewards.exact import exact
from ikusei.run import comparison
from ikusei.types import Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KS = (1, 2, 4, 8, 16, 32, 64, 128)
NUM_PROMPTS, MANY = 120, KS[-1]
RL_STEPS, MORE_STEPS = 200, 150
RL = {"prompts_per_step": 256, "lr": 4e-4}  # more prompts, so less noise and room for twice the rate
GUESSES = 2000


def asked(workspace: Workspace, name: str, model: Path, base: Path) -> Any:
    """Of each held-out prompt how many of its answers are right, and of all answers the perplexity under the base."""

    def make() -> dict[str, Any]:
        prompts = held_out(model, Expressions(), NUM_PROMPTS)
        groups = judged(answers(model, prompts, MANY, Sampling(**SAMPLING), workspace.seed), exact)
        rows = zip(groups, logps(base, groups), strict=True)
        ppl = [math.exp(-logp / len(r.tokens)) for group, row in rows for r, logp in zip(group.responses, row, strict=True)]
        return {"right": [int(sum(group.totals)) for group in groups], "perplexity": median(ppl)}

    return workspace.once(name, make)


def measure(workspace: Workspace) -> SeedResult:
    """pass@k by k, also of guessing, perplexities, and the share of prompts that RL alone solves."""
    base = workspace.train("base", shown(workspace, BASE_STEPS))
    runs = {
        "base": base,
        "rl": workspace.train("rl", rewarded(workspace, str(base / "final"), RL_STEPS, **RL)),
        "more": workspace.train("more", shown(workspace, MORE_STEPS, str(base / "final"), start=ROWS // 2)),
    }
    found = {name: asked(workspace, f"{name}-answers", run, base) for name, run in runs.items()}
    solved = {name: {i for i, c in enumerate(each["right"]) if c} for name, each in found.items()}
    return {
        "pass": {name: [pass_at(each["right"], k) for k in KS] for name, each in found.items()},
        "guess": guessing(workspace.seed * ROWS),
        "perplexity": {name: each["perplexity"] for name, each in found.items()},
        "solved": {name: len(each) / NUM_PROMPTS for name, each in solved.items()},
        "rl_alone": len(solved["rl"] - solved["base"]) / NUM_PROMPTS,
    }


def pass_at(right: Sequence[int], k: int) -> float:
    return fmean(pass_at_k(MANY, c, k) for c in right)


def guessing(start: int) -> list[float]:
    """pass@k of right answers to other prompts: 1 - (1 - share)^k, over the held-out prompts."""
    common = Counter(Expressions().row("train", start + i).columns["answer"] for i in range(GUESSES))
    shares = [common[Expressions().row("test", i).columns["answer"]] / GUESSES for i in range(NUM_PROMPTS)]
    return [fmean(1 - (1 - share) ** k for share in shares) for k in KS]


def gain(found: SeedResult, name: str, k: int) -> float:
    """Of pass@k over the base."""
    return found["pass"][name][KS.index(k)] - found["pass"]["base"][KS.index(k)]


def crossing(found: SeedResult) -> float | None:
    return comparison.crossing({k: gain(found, "rl", k) for k in KS})


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    named = (("base", BEFORE, "base"), ("rl", AFTER, "RL"), ("more", LOST, "taught more"))
    for name, colour, label in named:
        over_seeds(axes[0], KS, [each["pass"][name] for each in found], colour, label)
    axes[0].plot(KS, [fmean(row) for row in zip(*(each["guess"] for each in found), strict=True)], ":", color=INK, label="guessing")
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks(KS, [str(k) for k in KS])
    axes[0].set(ylim=(0, 1.03), xlabel="tries k", title="pass@k")
    axes[0].legend(frameon=False, labelcolor=INK, loc="lower right", fontsize=8)
    for place, (name, colour, _) in enumerate(named):
        values = [each["perplexity"][name] for each in found]
        axes[1].bar(place, fmean(values), color=colour, alpha=0.6, width=0.6)
        axes[1].plot([place] * len(values), values, "o", color=colour, markersize=4)
    axes[1].set_xticks(range(len(named)), [label for *_, label in named])
    axes[1].set(title="perplexity of its answers to the base")


CLAIM = Claim(
    says="RL with verifiable rewards raises pass@1 and lowers pass@k at large k: it solves hardly a prompt that its base does not",
    source="Yue et al. 2025, arXiv:2504.13837",
    setup=f"A model of 0.4 M parameters learns expressions of three digits from {BASE_STEPS} steps of 64 right answers (the base); "
    f"then {RL_STEPS} steps of GRPO (DAPO's numbers; {RL['prompts_per_step']} prompts, 8 answers, lr {RL['lr']:g}), or, as the "
    f"control, {MORE_STEPS} more steps of right answers; {NUM_PROMPTS} held-out prompts, {MANY} answers each. Measured before "
    "with 32 prompts a step at half of the rate: pass@1 rose by 0.05 to 0.10, pass@128 fell by 0.05 to 0.16, and in no seed "
    "were RL's answers likely to the base, for much of what moved was noise. Then tried, one seed each: 128 prompts (+0.13, "
    "−0.11), a rate that falls to 0 (+0.25, −0.11), 240 steps (+0.17, −0.16, less likely answers again), and with 0.8 M "
    "parameters 32 (+0.04, −0.14, less likely), 128 (+0.23, −0.06) or 64 prompts at 5e-4 (−0.07, −0.58: it broke). The better "
    "RL learns here, the less is lost.",
    measure=measure,
    criteria=(
        Criterion("RL raises pass@1 by 0.04 or more", lambda f: gain(f, "rl", 1) >= 0.04, lambda f: f"{gain(f, 'rl', 1):+.3f}"),
        Criterion("RL lowers pass@128 by 0.15 or more", lambda f: gain(f, "rl", 128) <= -0.15, lambda f: f"{gain(f, 'rl', 128):+.3f}"),
        Criterion(
            "the curves cross between k = 2 and 64",
            lambda f: 2 <= (crossing(f) or 0) <= 64,
            lambda f: f"k = {crossing(f):.1f}" if crossing(f) else "never",
        ),
        Criterion("at most 5 % of prompts are solved by RL alone", lambda f: f["rl_alone"] <= 0.05, lambda f: f"{f['rl_alone']:.1%}"),
        Criterion(
            "the base holds RL's answers as likely as its own (median perplexity)",
            lambda f: f["perplexity"]["rl"] <= f["perplexity"]["base"],
            lambda f: f"{f['perplexity']['rl']:.2f} and {f['perplexity']['base']:.2f}",
        ),
        Criterion(
            "more teaching keeps pass@128 (−0.02)", lambda f: gain(f, "more", 128) >= -0.02, lambda f: f"{gain(f, 'more', 128):+.3f}"
        ),
        Criterion(
            "its answers are less likely to the base than the base's own",
            lambda f: f["perplexity"]["more"] > f["perplexity"]["base"],
            lambda f: f"{f['perplexity']['more']:.2f} and {f['perplexity']['base']:.2f}",
        ),
    ),
    draw=draw,
    panels=2,
)
