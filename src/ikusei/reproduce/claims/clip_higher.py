"""Clip higher: a higher upper clip leaves room to words of small probability, and so keeps more entropy.   DAPO, arXiv:2503.14476

    clip(w_t, 1 - 0.2, 1 + 0.2)     a word of 1 % may become 1.2 % in a step
    clip(w_t, 1 - 0.2, 1 + 0.28)    1.28 %

Clipping needs several updates from the same answers. Left out: DAPO's other parts, which both runs have alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ikusei.report.svg import AFTER, BEFORE, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.expressions import BASE_STEPS, SAMPLING, Expressions, rewarded, shown
from ikusei.reproduce.measuring import answers, held_out, judged, mean_total
from ikusei.reproduce.workspace import Workspace
from ikusei.rewards.exact import exact
from ikusei.run.read import read_run
from ikusei.types import Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS, PROMPTS, UPDATES = 60, 64, 4
NUM_PROMPTS, MANY = 120, 64
CLIPS = {"symmetric": 0.2, "higher": 0.28}


def measure(workspace: Workspace) -> SeedResult:
    """By step the share of words that the upper clip holds, and entropy over the groups that teach; after it, of held-out prompts, nats a
    token and the share of right answers."""
    base = workspace.train("base", shown(workspace, BASE_STEPS))
    found: dict[str, Any] = {"base": asked(workspace, "base-answers", base)}
    for name, clip in CLIPS.items():
        algorithm = {"name": "grpo", "scale_rewards": "group", "clip_low": 0.2, "clip_high": clip}
        recipe = rewarded(workspace, str(base / "final"), STEPS, updates_per_step=UPDATES, prompts_per_step=PROMPTS)
        run = workspace.train(name, {**recipe, "algorithm": algorithm})
        lines = {key: read_run(run).line(metric)[1] for key, metric in (("entropy", "entropy"), ("clipped", "clip_ratio/high_mean"))}
        found[name] = {**lines, **asked(workspace, f"{name}-answers", run)}
    return found


def asked(workspace: Workspace, name: str, model: Path) -> Any:
    """Of held-out answers their entropy, by what was drawn, and the share that is right."""

    def make() -> dict[str, float]:
        groups = judged(answers(model, held_out(model, Expressions(), NUM_PROMPTS), MANY, Sampling(**SAMPLING), workspace.seed), exact)
        tokens = fmean(len(r.tokens) for group in groups for r in group.responses)
        surprise = fmean(-math.fsum(r.logprobs or ()) for group in groups for r in group.responses)
        return {"held_out": surprise / tokens, "right": mean_total(groups)}

    return workspace.once(name, make)


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for name, colour in (("symmetric", BEFORE), ("higher", AFTER)):
        label = f"upper clip {CLIPS[name]}"
        over_seeds(axes[0], range(1, STEPS + 1), [each[name]["entropy"] for each in found], colour, label)
        axes[1].plot(
            [each[name]["right"] for each in found],
            [each[name]["held_out"] for each in found],
            "o",
            color=colour,
            markersize=5,
            label=label,
        )
    axes[1].plot([each["base"]["right"] for each in found], [each["base"]["held_out"] for each in found], "o", color=INK, label="base")
    axes[0].set(xlabel="steps of RL", title="entropy, nats a token")
    axes[1].set(xlabel="share of right answers, held-out prompts", title="entropy there, nats a token")
    axes[0].legend(frameon=False, labelcolor=INK)
    axes[1].legend(frameon=False, labelcolor=INK, fontsize=8)


CLAIM = Claim(
    says="A higher upper clip keeps more entropy than a symmetric one",
    source="DAPO, arXiv:2503.14476",
    setup=f"The base of the claim crossing; {STEPS} steps of GRPO ({PROMPTS} prompts, 8 answers, {UPDATES} updates from them) with an "
    f"upper clip of 0.2 and of 0.28, the lower one 0.2 in both; then {NUM_PROMPTS} held-out prompts with {MANY} answers each. "
    "Measured before with 32 prompts a step, and over the groups that teach: higher in one seed of three.",
    measure=measure,
    criteria=(
        Criterion(
            "the symmetric clip holds some words back: 0.1 % or more",
            lambda f: fmean(f["symmetric"]["clipped"]) >= 0.001,
            lambda f: f"{fmean(f['symmetric']['clipped']):.2%}",
        ),
        Criterion(
            "entropy is higher with the higher clip",
            lambda f: f["higher"]["held_out"] > f["symmetric"]["held_out"],
            lambda f: f"{f['higher']['held_out']:.3f} and {f['symmetric']['held_out']:.3f}, of {f['base']['held_out']:.3f}",
        ),
    ),
    draw=draw,
    panels=2,
)
