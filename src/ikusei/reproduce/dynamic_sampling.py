"""Dynamic sampling: prompts are sampled anew until every group teaches something, and fewer steps are needed.   DAPO, arXiv:2503.14476

A step costs more answers by it; what that amounts to is shown beside. Left out: the wall clock, which on a large machine hardly notices.
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
from ikusei.run.tables import read_table

STEPS, PROMPTS, ROUNDS, WINDOW = 60, 16, 12, 10
GAIN = 0.03  # of the mean reward over a window, over the first steps of the run without
REFILLS = {"plain": 0, "dynamic": ROUNDS}


def measure(lab: Lab) -> Found:
    """By step: reward, groups that taught, answers written."""
    base = str(lab.train("base", shown(lab, BASE_STEPS)) / "final")
    found: dict[str, Any] = {}
    for name, rounds in REFILLS.items():
        run = lab.train(name, rewarded(lab, base, STEPS, prompts_per_step=PROMPTS, refill_rounds=rounds))
        tables = [read_table(file) for file in sorted((run / "responses").glob("step-*.parquet"))]
        found[name] = {
            "reward": read_story(run).line("reward")[1],
            "taught": [sum(row["kept"] for row in rows) // 8 for rows in tables],
            "answers": [len(rows) for rows in tables],
        }
    return found


def filled(found: Found, name: str) -> float:
    """The share of a step's places that groups which teach have taken."""
    return fmean(found[name]["taught"]) / PROMPTS


def needed(found: Found, name: str) -> int:
    """The first step at which the mean reward of a window reaches the target; one more than there are where it never does."""
    target, reward = fmean(found["plain"]["reward"][:WINDOW]) + GAIN, found[name]["reward"]
    return next((end for end in range(WINDOW, STEPS + 1) if fmean(reward[end - WINDOW : end]) >= target), STEPS + 1)


def draw(axes: Sequence[Axes], found: Sequence[Found]) -> None:
    for name, colour, label in (("plain", BEFORE, "every prompt once"), ("dynamic", AFTER, "sampled anew")):
        smooth = [[fmean(each[name]["reward"][max(0, i - WINDOW) : i]) for i in range(1, STEPS + 1)] for each in found]
        over_seeds(axes[0], range(1, STEPS + 1), smooth, colour, label)
        over_seeds(axes[1], range(1, STEPS + 1), [each[name]["taught"] for each in found], colour, label)
    axes[0].set(xlabel="steps of RL", title=f"share of right answers, mean of {WINDOW} steps")
    axes[1].set(xlabel="steps of RL", ylim=(0, PROMPTS * 1.05), title="groups that teach, a step")
    axes[0].legend(frameon=False, labelcolor=INK, loc="upper left")


def cost(found: Found, name: str) -> int:
    """Answers written up to the target."""
    return sum(found[name]["answers"][: needed(found, name)])


CLAIM = Claim(
    says="Sampling anew until every group teaches something reaches the same reward in fewer steps",
    source="DAPO, arXiv:2503.14476",
    setup=f"The base of the claim crossing; {STEPS} steps of GRPO ({PROMPTS} prompts, 8 answers), with none and with up to {ROUNDS} rounds "
    f"of further prompts; the target is {GAIN} above the mean reward of the first {WINDOW} steps, by means of {WINDOW} steps.",
    measure=measure,
    criteria=(
        Criterion(
            "with it all places of a step are taken by groups that teach (99 % or more)",
            lambda f: filled(f, "dynamic") >= 0.99,
            lambda f: f"{filled(f, 'dynamic'):.1%} and {filled(f, 'plain'):.1%}",
        ),
        Criterion(
            "it reaches the target in fewer steps",
            lambda f: needed(f, "dynamic") < needed(f, "plain"),
            lambda f: f"{needed(f, 'dynamic')} and {needed(f, 'plain')} steps, {cost(f, 'dynamic'):,} and {cost(f, 'plain'):,} answers",
        ),
    ),
    draw=draw,
    panels=2,
)
