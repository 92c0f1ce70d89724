"""Online DPO against offline DPO: pairs that the policy writes now against pairs that it wrote once, and pairs that it never would.

    online    at each step the policy's own answers, ranked by the gold reward                     arXiv:2402.04792
    own       pairs of the reference's answers, collected beforehand with the same reward
    foreign   the same chosen answers, over sentences whose letters stand in another order

At the same KL online earns no less (arXiv:2405.08448); foreign pairs give a margin that says nothing:  h = d(chosen) - d(rejected) grows by
making still less likely what was never said.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.graded_reward import graded
from ikusei.reproduce.measuring import answers, held_out, judged, kl, mean_total
from ikusei.reproduce.preferences import as_task, moved, pair
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import read_run
from ikusei.tasks.cat_lover import CatLover
from ikusei.types import Prompt, Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHORT = Sampling(max_tokens=48)
LENGTHS = {"online": (6, 12, 24), "own": (10, 20, 40)}  # steps
EQUAL = 40  # steps at which h is compared
BETA, LR = 0.1, 1e-4


def measure(workspace: Workspace) -> SeedResult:
    """KL and gold reward of each arm after each number of steps, and h of the two kinds of pairs."""
    asked = {"model": "seedling", "task": "cat_lover", "sampling": {"max_tokens": SHORT.max_tokens}, "eval": {"num_prompts": 0}}
    asked["rewards"] = ["ikusei.reproduce.graded_reward:graded"]
    collect = {"kind": "pairs", "num_prompts": 512, "num_responses": 4, "prompts_per_step": 128}
    written = read_run(workspace.train("pairs", {**asked, "collect": collect})).collected
    own = [pair(row["prompt"], row["chosen"], row["rejected"]) for row in written]
    chance = Random(workspace.seed)
    foreign = [{**row, "rejected": "".join(chance.sample(row["rejected"], len(row["rejected"])))} for row in own]
    tasks = {"own": as_task(workspace, "own", own), "foreign": as_task(workspace, "foreign", foreign)}
    prompts = held_out("seedling", CatLover(), 48)
    found: dict[str, Any] = {"start": workspace.once("start", partial(place, "seedling", prompts, workspace.seed))}
    for arm, steps in LENGTHS.items():
        runs = [workspace.train(f"{arm}-{count}", {**asked, **recipe(arm, count, tasks)}) for count in steps]
        found[arm] = [workspace.once(f"{run.name}-measured", partial(place, run, prompts, workspace.seed)) for run in runs]
    foreign_run = workspace.train("foreign", {**asked, **recipe("foreign", EQUAL, tasks)})
    found["foreign"] = [workspace.once("foreign-measured", partial(place, foreign_run, prompts, workspace.seed))]
    for arm, run, rows in (("own", workspace.folder / f"own-{EQUAL}", own), ("foreign", foreign_run, foreign)):
        steps, margins = read_run(run).line("rewards/margins")
        found[f"{arm}_h"] = workspace.once(f"{arm}-h", partial(moved, run, "seedling", rows[:256])) | {"line": [x / BETA for x in margins]}
    return found


def recipe(arm: str, steps: int, tasks: dict[str, Any]) -> dict[str, Any]:
    shared = {"steps": steps, "lr": LR, "lr_shape": "constant", "save_every": steps}
    if arm == "online":
        return {"algorithm": {"name": "online_dpo", "beta": BETA}, "train": {**shared, "prompts_per_step": 16, "num_responses": 4}}
    return {"task": tasks[arm], "algorithm": {"name": "dpo", "beta": BETA}, "train": {**shared, "examples_per_step": 16}}


def place(model: str | Path, prompts: Sequence[Prompt], seed: int) -> list[float]:
    """KL from the reference, and the gold reward."""
    groups = judged(answers(model, prompts, 24, SHORT, seed), graded)
    return [0.0 if model == "seedling" else kl(groups, "seedling"), mean_total(groups)]


def matched(found: SeedResult) -> tuple[float, float, float]:
    """The largest KL that both arms reach, and what online and offline earn there, on a line between what was measured."""
    lines = [np.array(sorted([found["start"], *found[arm]])) for arm in ("online", "own")]
    at = min(float(line[-1, 0]) for line in lines)
    online, own = (float(np.interp(at, line[:, 0], line[:, 1])) for line in lines)
    return at, online, own


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for number, each in enumerate(found):
        for arm, colour, label in (
            ("online", AFTER, "online"),
            ("own", BEFORE, "offline, own pairs"),
            ("foreign", LOST, "offline, foreign"),
        ):
            x, y = zip(*sorted([each["start"], *each[arm]]), strict=True)
            axes[0].plot(x, y, "o-", color=colour, markersize=3.5, linewidth=1.2, label=None if number else label)
    axes[0].set(xlabel="KL from the reference, nats an answer", title="gold reward")
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=8, loc="upper right")
    for arm, colour, label in (("own", BEFORE, "own pairs"), ("foreign", LOST, "foreign pairs")):
        over_seeds(axes[1], range(1, EQUAL + 1), [each[f"{arm}_h"]["line"] for each in found], colour, label)
    axes[1].set(xlabel="step", title="h of the pairs, nats")
    axes[1].legend(frameon=False, labelcolor=INK, fontsize=8)


CLAIM = Claim(
    says="Online DPO earns no less than offline DPO at the same KL, and pairs that the policy would never write only inflate the margin",
    source="Guo et al. 2024, arXiv:2402.04792; Tang et al. 2024, arXiv:2405.08448",
    setup=f"The seedling about cats, a gold reward of five levels, beta {BETA}; online with 16 x 4 answers a step, offline with 16 pairs a "
    "step of its own answers, or of its own over letters in another order.",
    measure=measure,
    criteria=(
        Criterion(
            "online earns no less at the largest KL that both reach",
            lambda f: matched(f)[1] >= matched(f)[2],
            lambda f: "at {:.1f} nats {:.2f} and {:.2f}".format(*matched(f)),
        ),
        Criterion(
            f"h of foreign pairs at least 3 times that of own pairs after {EQUAL} steps",
            lambda f: f["foreign_h"]["h"] >= 3 * f["own_h"]["h"],
            lambda f: f"{f['foreign_h']['h']:.1f} and {f['own_h']['h']:.1f}",
        ),
    ),
    draw=draw,
    panels=2,
)
