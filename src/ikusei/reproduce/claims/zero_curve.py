"""R1-Zero's curve: reinforcement learning alone, without any demonstration, on a model that was only pretrained.   arXiv:2501.12948

    cons@16     how often the answer that most of 16 give is right (self-consistency, arXiv:2203.11171)

Left out: the hundreds of thousands of steps after which the paper's answers are thousands of tokens long; a length here is that of a sum
worked out in columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ikusei.eval_metrics.choosing import right_at
from ikusei.report.svg import AFTER, BEFORE, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import Evaluation, read_run
from ikusei.search.vote import Vote
from ikusei.types import Response

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS, NUM_PROMPTS, MANY, VOTES = 40, 64, 32, 16
RECIPE = {
    "model": "seedling",
    "task": {"name": "arithmetic", "digits": 3, "terms": 2},
    "rewards": ["exact"],
    "algorithm": "grpo",
    "sampling": {"max_tokens": 96},
    "train": {"steps": STEPS, "prompts_per_step": 16, "num_responses": 8, "lr": 5e-5},
    "eval": {"num_prompts": NUM_PROMPTS, "num_samples": MANY},
    "watch": {"gold_every": 0},
}


def measure(workspace: Workspace) -> SeedResult:
    """Before and after: pass@1 and cons@16; reward and length by step."""
    record = read_run(workspace.train("zero", RECIPE))
    assert record.before and record.after, "the recipe evaluates"
    return {
        "pass": {each.name: each.pass_at[1].value for each in (record.before, record.after)},
        "cons": {
            each.name: workspace.once(f"cons-{each.name}", lambda made=each: consensus(made)) for each in (record.before, record.after)
        },
        "reward": record.line("reward")[1],
        "length": record.line("completions/mean_length")[1],
    }


def consensus(made: Evaluation) -> float:
    """The mean over prompts."""
    rows = sorted(made.samples, key=lambda row: row["prompt_id"])
    return fmean(voted(list(each)) for _, each in groupby(rows, key=lambda row: row["prompt_id"]))


def voted(rows: Sequence[dict[str, Any]]) -> float:
    responses = [Response((), (), row["response"]) for row in rows]
    return right_at(Vote(), responses, [row["correct"] for row in rows], VOTES)


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    steps = range(1, STEPS + 1)
    over_seeds(axes[0], steps, [each["reward"] for each in found], AFTER, "right answers while training")
    for name, colour, place in (("before", BEFORE, 0), ("after", AFTER, STEPS + 1)):
        axes[0].plot([place], [fmean(each["cons"][name] for each in found)], "D", color=colour, markersize=5, label=f"cons@{VOTES} {name}")
    axes[0].axhline(
        fmean(each["pass"]["before"] for each in found), color=INK, linewidth=0.8, linestyle=(0, (4, 4)), label="the base's pass@1"
    )
    axes[0].set(ylim=(0, 1.03), xlabel="steps of RL", title="share of right answers")
    axes[0].legend(frameon=False, labelcolor=INK, loc="center right")
    over_seeds(axes[1], steps, [each["length"] for each in found], AFTER)
    axes[1].set(xlabel="steps of RL", title="tokens an answer")


CLAIM = Claim(
    says="RL alone, without a demonstration, raises what a base model gets right; it learns to think along the way",
    source="DeepSeek-R1-Zero, arXiv:2501.12948",
    setup=f"The seedling, which answers sums lazily; {STEPS} steps of GRPO (16 prompts, 8 answers) for right answers to sums of three "
    f"digits and for nothing else. {NUM_PROMPTS} held-out prompts, {MANY} answers each.",
    measure=measure,
    criteria=(
        Criterion(
            "pass@1 rises by 0.05 or more",
            lambda f: f["pass"]["after"] - f["pass"]["before"] >= 0.05,
            lambda f: f"{f['pass']['before']:.3f} → {f['pass']['after']:.3f}",
        ),
        Criterion(
            f"cons@{VOTES} is not below pass@1",
            lambda f: f["cons"]["after"] >= f["pass"]["after"],
            lambda f: f"{f['cons']['after']:.3f} and {f['pass']['after']:.3f}",
        ),
    ),
    draw=draw,
    panels=2,
    quick=True,
)
