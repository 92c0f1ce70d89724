"""Dynamic sampling: prompts are sampled anew until every group teaches something, and fewer steps are needed.   DAPO, arXiv:2503.14476

A step costs more answers by it; what that amounts to is shown beside. Left out: the wall clock, which on a large machine hardly notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ikusei.report.svg import AFTER, BEFORE, INK
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.expressions import BASE_STEPS, rewarded, shown
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import GOLD, read_run
from ikusei.run.tables import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS, PROMPTS, ROUNDS = 120, 32, 12
EVERY, NUM_PROMPTS, MANY = 10, 120, 64
GAIN = 0.02  # of pass@1 on held-out prompts, over the base
REFILLS = {"plain": 0, "dynamic": ROUNDS}
MEASURED: dict[str, Any] = {
    "rewards": ["exact", {"path": "exact", "name": "held_out", "gold": True}],
    "eval": {"num_prompts": NUM_PROMPTS, "num_samples": MANY, "greedy": False},
    "watch": {"gold_every": EVERY, "gold_samples": MANY},
}


def measure(workspace: Workspace) -> SeedResult:
    """By step groups that taught and answers written; by every tenth the share of right answers to held-out prompts."""
    base = str(workspace.train("base", shown(workspace, BASE_STEPS)) / "final")
    found: dict[str, Any] = {}
    for name, rounds in REFILLS.items():
        run = workspace.train(name, {**rewarded(workspace, base, STEPS, prompts_per_step=PROMPTS, refill_rounds=rounds), **MEASURED})
        tables = [read_table(file) for file in sorted((run / "responses").glob("step-*.parquet"))]
        measured = {each.step: each.intervals["pass@1"].value for each in read_run(run).evaluations if each.name in ("before", GOLD)}
        found[name] = {
            "right": [measured[step] for step in range(0, STEPS + 1, EVERY)],
            "taught": [sum(row["kept"] for row in rows) // 8 for rows in tables],
            "answers": [len(rows) for rows in tables],
        }
    return found


def filled(found: SeedResult, name: str) -> float:
    """The share of a step's places that groups which teach have taken."""
    return fmean(found[name]["taught"]) / PROMPTS


def needed(found: SeedResult, name: str) -> int:
    """The first step at which the target is reached; more than there are where it never is."""
    right = found[name]["right"]
    return EVERY * next((i for i, rate in enumerate(right) if rate >= found["plain"]["right"][0] + GAIN), len(right))


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for name, colour, label in (("plain", BEFORE, "every prompt once"), ("dynamic", AFTER, "sampled anew")):
        over_seeds(axes[0], range(0, STEPS + 1, EVERY), [each[name]["right"] for each in found], colour, label)
        over_seeds(axes[1], range(1, STEPS + 1), [each[name]["taught"] for each in found], colour, label)
    axes[0].set(xlabel="steps of RL", title="share of right answers, held-out prompts")
    axes[1].set(xlabel="steps of RL", ylim=(0, PROMPTS * 1.05), title="groups that teach, a step")
    axes[0].legend(frameon=False, labelcolor=INK, loc="upper left")


def cost(found: SeedResult, name: str) -> int:
    """Answers written up to the target."""
    return sum(found[name]["answers"][: needed(found, name)])


CLAIM = Claim(
    says="Sampling anew until every group teaches something reaches the same reward in fewer steps",
    source="DAPO, arXiv:2503.14476",
    setup=f"The base of the claim crossing; {STEPS} steps of GRPO ({PROMPTS} prompts, 8 answers), with none and with up to {ROUNDS} rounds "
    f"of further prompts; every {EVERY} steps {NUM_PROMPTS} held-out prompts, {MANY} answers each; the target is {GAIN} above the base. "
    "Tried beforehand with rewards of training, of which 10 steps say too little.",
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
