"""The price of RL steps: the longer it goes on, the higher pass@1 and the lower pass@128.   arXiv:2504.13837, table 3

    what is left to gain = pass@128 of the base - pass@1 after RL          (the paper's sampling efficiency gap)

The expressions of crossing.py; stages of equal length, one after the other, each begun with fresh moments of the optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ikusei.report.svg import AFTER, BEFORE, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.claims.crossing import KS, MANY, NUM_PROMPTS, asked, pass_at
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.expressions import BASE_STEPS, ROWS, rewarded, shown
from ikusei.reproduce.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGE, STAGES = 80, 3


def measure(workspace: Workspace) -> SeedResult:
    """pass@k by k, after each stage."""
    base = model = workspace.train("base", shown(workspace, BASE_STEPS))
    right = [asked(workspace, "base-answers", base, base)["right"]]
    for stage in range(STAGES):
        recipe = rewarded(workspace, str(model / "final"), STAGE, start=stage * ROWS // STAGES)
        model = workspace.train(f"rl-{stage}", recipe)
        right.append(asked(workspace, f"rl-{stage}-answers", model, base)["right"])
    return {"steps": [STAGE * i for i in range(STAGES + 1)], "pass": {str(k): [pass_at(each, k) for each in right] for k in KS}}


def violations(found: SeedResult) -> int:
    """Stages after which pass@1 was lower or pass@128 higher than before."""
    falls = sum(after < before for before, after in pairwise(found["pass"]["1"]))
    return falls + sum(after > before for before, after in pairwise(found["pass"][str(MANY)]))


def left(found: SeedResult) -> float:
    return found["pass"][str(MANY)][0] - found["pass"]["1"][-1]


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for pair, k, colour in ((axes[0], 1, AFTER), (axes[1], MANY, BEFORE)):
        over_seeds(pair, found[0]["steps"], [each["pass"][str(k)] for each in found], colour)
        pair.axhline(sum(each["pass"][str(k)][0] for each in found) / len(found), color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        pair.set(xlabel="steps of RL", title=f"pass@{k} (dashed: the base)")


CLAIM = Claim(
    says="With the steps of RL pass@1 rises and pass@k at large k falls",
    source="Yue et al. 2025, arXiv:2504.13837, table 3",
    setup=f"The base of the claim crossing, then {STAGES} times {STAGE} steps of GRPO on new prompts each time; {NUM_PROMPTS} held-out "
    f"prompts with {MANY} answers each, after each stage.",
    measure=measure,
    criteria=(
        Criterion(
            "pass@1 never falls and pass@128 never rises, one stage aside",
            lambda f: violations(f) <= 1,
            lambda f: f"{violations(f)} of {2 * STAGES} against it",
        ),
        Criterion(
            "pass@1 ends higher than it began",
            lambda f: f["pass"]["1"][-1] > f["pass"]["1"][0],
            lambda f: f"{f['pass']['1'][0]:.3f} → {f['pass']['1'][-1]:.3f}",
        ),
        Criterion(
            "pass@128 ends lower than it began",
            lambda f: f["pass"]["128"][-1] < f["pass"]["128"][0],
            lambda f: f"{f['pass']['128'][0]:.3f} → {f['pass']['128'][-1]:.3f}",
        ),
        Criterion(
            "RL has not reached what the base holds: pass@128 of the base above pass@1 after",
            lambda f: left(f) > 0,
            lambda f: f"{left(f):+.3f}",
        ),
    ),
    draw=draw,
    panels=2,
)
