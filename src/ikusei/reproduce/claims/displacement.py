"""Likelihood displacement: DPO raises its margin while the chosen answers themselves become less likely.   arXiv:2410.08847

    h = d(chosen) - d(rejected),  d(y) = log pi(y) - log ref(y):     h grows although d(chosen) < 0, where d(rejected) falls faster

A term of NLL on the chosen answer (arXiv:2404.19733) holds it up. Left out: embeddings of pairs (the CHES score).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import answers, held_out, judged, kl, mean_total
from ikusei.reproduce.preferences import PairRow, as_task, moved, pair
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import read_run
from ikusei.tasks.gym import Gym, score
from ikusei.text.answer import split_thought
from ikusei.types import Prompt, Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUMS = {"max_terms": 3, "max_digits": 1, "operators": ["+", "-", "*"], "allow_parentheses": False}
TASK = {"name": "gym", "task": "basic_arithmetic", "config": SUMS, "compact": True}
SHORT = Sampling(max_tokens=24)
STEPS, BETA = 120, 0.1
ARMS = {"gold": ("gold", 0.0), "gold_nll": ("gold", 1.0), "own": ("own", 0.0)}  # whose right answers, and the weight of the NLL
DRAWN = {"gold": ("gold answers, DPO", LOST), "gold_nll": ("gold answers, DPO + NLL", AFTER), "own": ("own right answers, DPO", BEFORE)}


def measure(workspace: Workspace) -> SeedResult:
    """Of each arm, how far the answers of its training pairs have moved, the KL and the accuracy on held-out questions."""
    asked = {"model": "seedling", "task": TASK, "sampling": {"max_tokens": SHORT.max_tokens}, "eval": {"num_prompts": 0}}
    collect = {"kind": "answers", "num_prompts": 512, "num_responses": 12, "prompts_per_step": 128}
    written = read_run(workspace.train("answers", {**asked, "collect": collect})).collected
    rows = {"gold": pairs(written, gold=True), "own": pairs(written, gold=False)}
    tasks = {name: as_task(workspace, name, made) for name, made in rows.items()}
    prompts = held_out("seedling", Gym("basic_arithmetic", SUMS, compact=True), 64)
    found: dict[str, Any] = {"pairs": {name: len(made) for name, made in rows.items()}}
    for arm, (name, nll) in ARMS.items():
        train = {"steps": STEPS, "examples_per_step": 32, "lr": 1e-4, "lr_shape": "constant", "save_every": STEPS}
        run = workspace.train(
            arm, {**asked, "task": tasks[name], "algorithm": {"name": "dpo", "beta": BETA, "nll_coef": nll}, "train": train}
        )
        found[arm] = workspace.once(f"{arm}-measured", partial(log_prob_changes, run, rows[name], prompts, workspace.seed))
    return found


def pairs(written: Sequence[PairRow], gold: bool) -> list[PairRow]:
    """Of each question the first wrong answer, against its gold answer or against the model's own first right one, where it has one."""
    made = []
    for row in written:
        right = [text for text in row["responses"] if split_thought(text)[1] == row["answer"]]
        wrong = [text for text in row["responses"] if text not in right]
        chosen = [f"<think></think>{row['answer']}"] if gold else right
        made += [pair(row["prompt"], chosen[0], wrong[0])] if chosen and wrong else []
    return made


def log_prob_changes(run: Path, rows: Sequence[PairRow], prompts: Sequence[Prompt], seed: int) -> dict[str, Any]:
    groups = answers(run, prompts, 16, SHORT, seed)
    steps, chosen = read_run(run).line("rewards/chosen")
    margins = read_run(run).line("rewards/margins")[1]
    return {
        **moved(run, "seedling", rows[:256]),
        "kl": kl(groups, "seedling"),
        "right": mean_total(judged(groups, score)),
        "lines": {"step": steps, "chosen": [x / BETA for x in chosen], "h": [x / BETA for x in margins]},
    }


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for arm, (label, colour) in DRAWN.items():
        for panel, name in zip(axes, ("chosen", "h"), strict=True):
            lines = [each[arm]["lines"] for each in found]
            smooth = [[sum(line[name][i : i + 10]) / 10 for i in range(0, STEPS, 10)] for line in lines]
            over_seeds(panel, [i + 10 for i in range(0, STEPS, 10)], smooth, colour, label)
    axes[0].axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set(xlabel="step", title="log-prob gained by chosen, nats")
    axes[1].set(xlabel="step", title="h of the pairs, nats")
    axes[1].set_ylim(top=1.5 * axes[1].get_ylim()[1])
    axes[1].legend(frameon=False, labelcolor=INK, loc="upper left", fontsize=8)


CLAIM = Claim(
    says="DPO makes the chosen answers themselves less likely while margin and accuracy rise; a term of NLL turns that round",
    source="Razin et al. 2024, arXiv:2410.08847; the term: arXiv:2404.19733",
    setup=f"The seedling on reasoning-gym's basic_arithmetic without thoughts; its own wrong answers against gold ones and against its own "
    f"right ones; {STEPS} steps of 32 pairs at beta {BETA}, with and without nll_coef 1; log-probs of the pairs trained on.",
    measure=measure,
    criteria=(
        Criterion("gold pairs: the chosen answers become less likely", lambda f: f["gold"]["chosen"] < 0, lambda f: _shown(f, "gold")),
        Criterion("own pairs: they do so too", lambda f: f["own"]["chosen"] < 0, lambda f: _shown(f, "own")),
        Criterion(
            "h above 0 and accuracy above a half all the same",
            lambda f: all(f[arm]["h"] > 0 and f[arm]["accuracy"] > 0.5 for arm in ("gold", "own")),
            lambda f: ", ".join(f"h {f[arm]['h']:.1f}, {f[arm]['accuracy']:.2f}" for arm in ("gold", "own")),
        ),
        Criterion("with NLL they become more likely", lambda f: f["gold_nll"]["chosen"] > 0, lambda f: _shown(f, "gold_nll")),
        Criterion(
            "and the KL is lower",
            lambda f: f["gold_nll"]["kl"] < f["gold"]["kl"],
            lambda f: f"{f['gold']['kl']:.2f} → {f['gold_nll']['kl']:.2f}",
        ),
    ),
    draw=draw,
    panels=2,
    quick=True,
)


def _shown(found: SeedResult, arm: str) -> str:
    return f"{found[arm]['chosen']:+.2f} nats"
