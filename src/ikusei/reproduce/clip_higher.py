"""Clip higher: a higher upper clip leaves room to words of small probability, and so keeps more entropy.   DAPO, arXiv:2503.14476

    clip(w_t, 1 - 0.2, 1 + 0.2)     a word of 1 % may become 1.2 % in a step
    clip(w_t, 1 - 0.2, 1 + 0.28)    1.28 %

Clipping needs several updates from the same answers. Left out: DAPO's other parts, which both runs have alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from ikusei.reproduce.claim import Claim, Criterion, Found
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.expressions import BASE_STEPS, rewarded, shown
from ikusei.reproduce.lab import Lab
from ikusei.run.plots import AFTER, BEFORE, INK
from ikusei.run.story import read_story

STEPS, UPDATES, LAST = 60, 4, 15
CLIPS = {"symmetric": 0.2, "higher": 0.28}


def measure(lab: Lab) -> Found:
    """By step: entropy, the share of words that the upper clip holds, reward."""
    base = str(lab.train("base", shown(lab, BASE_STEPS)) / "final")
    found: dict[str, Any] = {}
    for name, clip in CLIPS.items():
        algorithm = {"name": "grpo", "scale_rewards": "group", "clip_low": 0.2, "clip_high": clip}
        recipe = {**rewarded(lab, base, STEPS, updates_per_step=UPDATES), "algorithm": algorithm}
        story = read_story(lab.train(name, recipe))
        lines = {"entropy": "entropy", "clipped": "clip_ratio/high_mean", "reward": "reward"}
        found[name] = {key: story.line(metric)[1] for key, metric in lines.items()}
    return found


def last(found: Found, name: str, metric: str) -> float:
    """The mean of the last steps."""
    return fmean(found[name][metric][-LAST:])


def draw(axes: Sequence[Axes], found: Sequence[Found]) -> None:
    for name, colour in (("symmetric", BEFORE), ("higher", AFTER)):
        label = f"upper clip {CLIPS[name]}"
        over_seeds(axes[0], range(1, STEPS + 1), [each[name]["entropy"] for each in found], colour, label)
        over_seeds(axes[1], range(1, STEPS + 1), [each[name]["reward"] for each in found], colour, label)
    axes[0].set(xlabel="steps of RL", title="entropy, nats a token")
    axes[1].set(xlabel="steps of RL", title="share of right answers")
    axes[0].legend(frameon=False, labelcolor=INK)


CLAIM = Claim(
    says="A higher upper clip keeps more entropy than a symmetric one",
    source="DAPO, arXiv:2503.14476",
    setup=f"The base of the claim crossing; {STEPS} steps of GRPO (32 prompts, 8 answers, {UPDATES} updates from them) with an upper clip "
    f"of 0.2 and of 0.28, the lower one 0.2 in both; entropy is the mean of the last {LAST} steps, over the groups that teach.",
    measure=measure,
    criteria=(
        Criterion(
            "the symmetric clip holds some words back: 0.1 % or more",
            lambda f: fmean(f["symmetric"]["clipped"]) >= 0.001,
            lambda f: f"{fmean(f['symmetric']['clipped']):.2%}",
        ),
        Criterion(
            "entropy is higher with the higher clip",
            lambda f: last(f, "higher", "entropy") > last(f, "symmetric", "entropy"),
            lambda f: f"{last(f, 'higher', 'entropy'):.3f} and {last(f, 'symmetric', 'entropy'):.3f}",
        ),
    ),
    draw=draw,
    panels=2,
)
