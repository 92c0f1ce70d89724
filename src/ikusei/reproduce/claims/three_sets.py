"""Three sets of strings within each other: of all of them, pretraining raises the natural ones, preference learning, among these, the
desirable ones.

    P(set) = E over held-out questions of  sum over the strings y of the set  P(y | question)        lens.py says how it is estimated

For the untrained model it is by members of the set, drawn and weighted, since no sample would ever be natural; later on by samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ikusei.report.svg import AFTER, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.measuring import tiny_llama
from ikusei.reproduce.workspace import Workspace
from ikusei.run.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = ("untrained", "pretrain", "sft", "dpo")
MODEL = tiny_llama(96, 256, 3, 128, initializer_range=0.08)
ROAD = {
    "model": MODEL,
    "task": "cat_lover",
    "rewards": ["ikusei.tasks.cat_lover:taste"],
    "sampling": {"max_tokens": 48},
    "eval": {"num_prompts": 0},
    "lens": {"task": "cat_lover", "text": ["pretrain"], "settings": {"num_prompts": 24, "num_samples": 32}},
    "stages": [
        {
            "name": "pretrain",
            "task": {"name": "nursery", "num_text_rows": 12_800, "num_talk_rows": 0, "text": {"cat": 0.8, "sentence": 0.2}},
            "algorithm": "lm",
            "policy": {"weight_decay": 0.1},
            "train": {"steps": 200, "examples_per_step": 64, "lr": 3e-3, "warmup_steps": 20, "min_lr": 1e-4, "save_every": 200},
        },
        {
            "name": "sft",
            "task": {"name": "cat_lover", "kind": 0.5},
            "algorithm": "lm",
            "train": {"steps": 60, "examples_per_step": 32, "lr": 1e-3, "warmup_steps": 5},
        },
        {"name": "pairs", "collect": {"kind": "pairs", "num_prompts": 384, "num_responses": 6, "prompts_per_step": 128}},
        {
            "name": "dpo",
            "task": {"name": "files", "path": "stage:pairs"},
            "algorithm": {"name": "dpo", "beta": 1.0, "nll_coef": 5.0},
            "train": {"steps": 60, "examples_per_step": 32, "lr": 5e-4, "lr_shape": "linear"},
        },
    ],
}


def measure(workspace: Workspace) -> SeedResult:
    """Of each stage log10 P(natural) and P(desirable) by members, and both by samples."""
    rows = read_json(workspace.train("road", ROAD) / "lens.json")
    return {stage: {row["set"]: row for row in rows if row["stage"] == stage} for stage in STAGES}


def share(found: SeedResult, stage: str, name: str) -> float:
    """P(set), by samples, or by members before anything is learned."""
    row: dict[str, Any] = found[stage][name]
    return 10 ** row["log10_mass"] if stage == "untrained" else row["share"]


def kind(found: SeedResult, stage: str) -> float:
    """P(desirable | natural)."""
    return share(found, stage, "desirable") / share(found, stage, "natural")


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    places = range(len(STAGES))
    for name, alpha in (("natural", 0.4), ("desirable", 1.0)):
        means = [sum(share(each, stage, name) for each in found) / len(found) for stage in STAGES]
        axes[0].bar(places, means, 0.6, color=AFTER, alpha=alpha, linewidth=0, label=name)
        for place, stage in enumerate(STAGES):
            axes[0].plot([place] * len(found), [share(each, stage, name) for each in found], "o", color=INK, markersize=2.5)
    axes[0].text(0, 0.03, f"10^{math.log10(share(found[0], STAGES[0], 'natural')):.0f}", color=INK, ha="center")
    axes[0].set_xticks(places, STAGES)
    axes[0].set(ylim=(0, 1.2), title="P(set), the rest being no sentences")
    axes[0].legend(frameon=False, labelcolor=INK, loc="upper left", fontsize=8)
    for each in found:
        axes[1].plot(places, [kind(each, stage) for stage in STAGES], "o-", color=AFTER, markersize=4, linewidth=1.4)
    axes[1].set_xticks(places, STAGES)
    axes[1].set(ylim=(0, 1.05), title="P(desirable | natural)")


CLAIM = Claim(
    says="Pretraining raises, of all strings, the natural ones; preference learning, among these, the desirable ones",
    source="the picture of three nested sets by which post-training is taught; Ouyang et al. 2022, arXiv:2203.02155",
    setup="A Llama of 3 layers and width 96 from random weights: 200 steps of raw text about animals, 60 of conversations, half of them "
    "kind, pairs of its own answers, 60 steps of DPO with NLL; 24 held-out questions about cats.",
    measure=measure,
    criteria=(
        Criterion(
            "P(natural) after pretraining at least 1000 times the untrained model's, and a half",
            lambda f: share(f, "pretrain", "natural") >= max(0.5, 1000 * share(f, "untrained", "natural")),
            lambda f: f"{share(f, 'untrained', 'natural'):.0e} → {share(f, 'pretrain', 'natural'):.2f}",
        ),
        Criterion(
            "P(desirable | natural) after preference learning at least 0.1 above before",
            lambda f: kind(f, "dpo") >= kind(f, "sft") + 0.1,
            lambda f: f"{kind(f, 'sft'):.2f} → {kind(f, 'dpo'):.2f}",
        ),
        Criterion(
            "P(natural) after it at most 0.1 below before",
            lambda f: share(f, "dpo", "natural") >= share(f, "sft", "natural") - 0.1,
            lambda f: f"{share(f, 'sft', 'natural'):.2f} → {share(f, 'dpo', 'natural'):.2f}",
        ),
    ),
    draw=draw,
    panels=2,
)
