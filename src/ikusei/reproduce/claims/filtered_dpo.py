"""Filtered DPO: where half of the pairs are poor, DPO suffers, and leaving out what the policy has outgrown helps.   arXiv:2404.13846

    a pair stays for an epoch where  r(y) < r(chosen),  y one fresh answer of the policy: chosen answers no better than that teach nothing

A poor pair is in the right order too: its chosen answer is only better than something worse. Left out: a learned reward for r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from ikusei.loops.order import in_order
from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.measuring import answers, held_out, judged
from ikusei.reproduce.preferences import PairRow, as_task, pair
from ikusei.reproduce.workspace import Workspace
from ikusei.run.find import find_model
from ikusei.run.read import read_run
from ikusei.samplers.load import load_sampler
from ikusei.tasks.cat_lover import CatLover, cat_of, judge, speak, taste, verdict
from ikusei.text.chat import render
from ikusei.types import Example, Prompt, Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHORT = Sampling(max_tokens=48)
PAIRS, STEPS = 960, 60  # 16 a step: DPO sees every pair once
ARMS = {"high": ("high", False), "mix": ("mix", False), "filtered": ("mix", True)}
COLOURS = {"reference": INK, "high": BEFORE, "mix": LOST, "filtered": AFTER}


def measure(workspace: Workspace) -> SeedResult:
    """The gold of the reference and of each arm on held-out prompts, the share of pairs that the filter left from epoch to epoch, and of
    all pairs the share that it would leave to the reference and to what it trained."""
    asked = {"model": "seedling", "sampling": {"max_tokens": SHORT.max_tokens}, "eval": {"num_prompts": 0}}
    chance = Random(workspace.seed)
    rows = {name: data(chance, poor) for name, poor in (("high", 0.0), ("mix", 0.5))}
    prompts = held_out("seedling", CatLover(), 64)
    found: dict[str, Any] = {"reference": workspace.once("reference", partial(earned, "seedling", prompts, workspace.seed))}
    for arm, (name, filtered) in ARMS.items():
        train = {"steps": STEPS, "examples_per_step": 16, "lr": 1e-4, "lr_shape": "constant", "save_every": STEPS, "filtered": filtered}
        recipe = {"task": as_task(workspace, name, rows[name]), "algorithm": {"name": "dpo", "beta": 0.1}, "train": train}
        run = workspace.train(arm, {**asked, **recipe, "rewards": ["ikusei.tasks.cat_lover:taste"]})
        found[arm] = workspace.once(f"{arm}-measured", partial(earned, run, prompts, workspace.seed))
        if filtered:
            found["left"], found["steps"] = epochs(read_run(run).line("pairs/left")[1]), read_run(run).step
            asks = {"before": "seedling", "after": run}
            found["passing"] = [
                workspace.once(f"{when}-passing", partial(passing, model, rows["mix"], workspace.seed)) for when, model in asks.items()
            ]
    return found


def data(chance: Random, poor: float) -> list[PairRow]:
    """Pairs about cats, of which a share `poor` prefers an unkind sentence to a broken one; the others a kind sentence to an unkind one."""
    made = []
    for index in range(PAIRS):
        question = CatLover().row("train", index).prompt
        assert isinstance(question, str)
        kind, unkind, other = (speak(chance, tone, cat_of(question)) for tone in ("kind", "unkind", chance.choice(("kind", "unkind"))))
        made.append(pair(question, unkind, broken(chance, other)) if chance.random() < poor else pair(question, kind, unkind))
    return made


def broken(chance: Random, sentence: str) -> str:
    """The sentence without one of its letters, so that it is none."""
    while True:
        place = chance.randrange(len(sentence))
        less = sentence[:place] + sentence[place + 1 :]
        if verdict(less) == "neither":
            return less


def epochs(left: Sequence[float]) -> list[float]:
    """The share of the pairs that each epoch began with, from the number that each step had; no two epochs in a row have the same."""
    return [each / PAIRS for each, before in zip(left, [0.0, *left], strict=False) if each != before]


def passing(model: str | Path, rows: Sequence[PairRow], seed: int) -> float:
    """The share of pairs whose chosen answer beats a fresh one of the model, which is what the filter asks."""
    sampler = load_sampler(find_model(str(model)))
    prompts = [replace(render(sampler.tokenizer, Example(row["prompt"])), id=str(n)) for n, row in enumerate(rows)]
    own = in_order(prompts, list(sampler.sample(prompts, 1, SHORT, seed)))
    return fmean(taste(g.prompt, g.responses[0].text) < taste(g.prompt, row["chosen"]) for g, row in zip(own, rows, strict=True))


def earned(model: str | Path, prompts: Sequence[Prompt], seed: int) -> list[float]:
    """[P] the share of each prompt's answers that are kind."""
    return [fmean(group.totals) for group in judged(answers(model, prompts, 16, SHORT, seed), judge)]


def ahead(found: SeedResult, one: str, other: str) -> tuple[float, float]:
    """The mean difference over prompts, and its standard error."""
    differences = [a - b for a, b in zip(found[one], found[other], strict=True)]
    return fmean(differences), stdev(differences) / len(differences) ** 0.5


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for place, (arm, colour) in enumerate(COLOURS.items()):
        means = [fmean(each[arm]) for each in found]
        axes[0].bar(place, fmean(means), 0.6, color=colour, alpha=0.85, linewidth=0)
        axes[0].plot([place] * len(means), means, "o", color=INK, markersize=3)
    axes[0].set_xticks(range(len(COLOURS)), ["reference", "DPO, good", "DPO, half", "filtered"])
    axes[0].set(ylim=(0, 1), title="kind answers, share")
    for each in found:
        axes[1].plot(range(1, len(each["left"]) + 1), each["left"], "o-", color=AFTER, markersize=3, linewidth=1.4)
    axes[1].set_xticks(range(1, max(len(each["left"]) for each in found) + 1))
    axes[1].set(ylim=(0, 1), xlabel="epoch", title="pairs that the filter left, share")


def _shown(found: SeedResult, one: str, other: str) -> str:
    return "{:+.3f}, standard error {:.3f}".format(*ahead(found, one, other))


CLAIM = Claim(
    says="Poor pairs make DPO worse, and a filter by the policy's own answers makes up for it",
    source="Morimura et al. 2024, arXiv:2404.13846",
    setup=f"The seedling about cats, {PAIRS} pairs once through at beta 0.1: a kind sentence over an unkind one, or, in the mixture, half "
    "of the time an unkind one over a broken one; the filter asks the gold ranking, and ends the run where it leaves no step's pairs.",
    measure=measure,
    criteria=(
        Criterion(
            "DPO on the mixture below DPO on good pairs", lambda f: ahead(f, "mix", "high")[0] < 0, lambda f: _shown(f, "mix", "high")
        ),
        Criterion(
            "filtered at least a standard error above DPO on the mixture",
            lambda f: ahead(f, "filtered", "mix")[0] >= ahead(f, "filtered", "mix")[1],
            lambda f: _shown(f, "filtered", "mix"),
        ),
        Criterion(
            "fewer of all pairs pass the filter after training than before",
            lambda f: f["passing"][1] < f["passing"][0],
            lambda f: f"{f['passing'][0]:.2f} → {f['passing'][1]:.2f}",
        ),
    ),
    draw=draw,
    panels=2,
    quick=True,
)
