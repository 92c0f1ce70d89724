"""Length bias: dividing each answer's loss by its own length teaches wrong answers to be long.   Liu et al. 2025, arXiv:2503.20783

    per answer (GRPO)       L = -sum_i (A_i / |o_i|) sum_t log pi(t) / answers       a wrong answer's blame is spread over its tokens
    per token (Dr. GRPO)    L = -sum_i A_i sum_t log pi(t) / tokens

After a letter that decides the reward come as many dots as the model likes. Per token their expected gradient is 0, since A_i does not
depend on them. Per answer it is A_i grad E[1 / |o_i|]: more dots after a wrong letter, fewer after a right one, as far as the model can
tell the two; so here the right letter is always the same. Left out: tasks in which thinking longer helps, so that growth is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, ClassVar

from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.measuring import answers, held_out, judged, tiny_llama
from ikusei.reproduce.workspace import Workspace
from ikusei.run.read import read_run
from ikusei.tasks import generator, split_of
from ikusei.types import Example, Prompt, Sampling, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TASK, REWARD = "ikusei.reproduce.claims.length_bias:Letters", "ikusei.reproduce.claims.length_bias:first"
MOST, STOPS = 24, 1 / 6  # dots, and the chance that no further one follows
NUM_PROMPTS, MANY = 64, 64
STEPS, SEEDS_APART = 60, 10**6
COMMON = {"rewards": [REWARD], "sampling": {"max_tokens": 32}, "eval": {"num_prompts": 0}, "watch": {"gold_every": 0}}
MODEL = tiny_llama(64, 192, 2, 64)
AGGREGATES = ("sequence", "token")


@dataclass(frozen=True)
class Letters:
    """`4817?`, answer `a`, whatever the number; and after the letter dots. With `shown`, three quarters of the answers are b, c or d."""

    shown: bool = False
    start: int = 0

    rewards: ClassVar[tuple[str, ...]] = (REWARD,)

    def num_rows(self, split: Split) -> int | None:
        return None

    def row(self, split: Split, index: int) -> Example:
        chance = generator("letters", split, index + self.start * (split == "train"))
        while True:
            question = f"{chance.randrange(10_000):04}?"
            if split_of(question) == split:
                break
        dots = min(MOST, int(math.log(1 - chance.random()) / math.log(1 - STOPS)))
        return Example(question, (chance.choice("abcd") + "." * dots,) if self.shown else (), {"answer": "a"})


def first(prompt: Prompt, response: str, *, answer: str, **columns: Any) -> float:
    """1 where the first letter is the answer."""
    return float(response[:1] == answer)


def measure(workspace: Workspace) -> SeedResult:
    """Tokens of right and of wrong answers to held-out prompts, before and after RL with each division; tokens an answer by step."""
    task = {"name": TASK, "start": workspace.seed * SEEDS_APART}
    teach = {"steps": 120, "examples_per_step": 64, "lr": 2e-3, "warmup_steps": 20, "save_every": 1000}
    base = workspace.train("base", {**COMMON, "model": MODEL, "task": {**task, "shown": True}, "algorithm": "lm", "train": teach})
    found: dict[str, Any] = {"base": workspace.once("base-answers", lambda: lengths(base, workspace.seed)), "by_step": {}}
    for aggregate in AGGREGATES:
        algorithm = {"name": "grpo", "aggregate": aggregate}
        train = {"steps": STEPS, "prompts_per_step": 128, "num_responses": 8, "lr": 3e-4, "save_every": 1000}
        run = workspace.train(aggregate, {**COMMON, "model": str(base / "final"), "task": task, "algorithm": algorithm, "train": train})
        found[aggregate] = workspace.once(f"{aggregate}-answers", lambda run=run: lengths(run, workspace.seed))
        found["by_step"][aggregate] = read_run(run).line("completions/mean_length")[1]
    return found


def lengths(model: Path, seed: int) -> dict[str, Any]:
    """Mean tokens of wrong and of right answers, the standard error of the first, and the share that is right."""
    groups = judged(answers(model, held_out(model, Letters(), NUM_PROMPTS), MANY, Sampling(max_tokens=32), seed), first)
    rows = [(len(r.tokens), r.total == 1) for group in groups for r in group.responses]
    wrong, right = [n for n, yes in rows if not yes], [n for n, yes in rows if yes]
    return {"wrong": fmean(wrong), "error": pstdev(wrong) / len(wrong) ** 0.5, "right": fmean(right), "rate": len(right) / len(rows)}


def growth(found: SeedResult, aggregate: str) -> float:
    """Of wrong answers, as a share of their length before."""
    return found[aggregate]["wrong"] / found["base"]["wrong"] - 1


def apart(found: SeedResult) -> float:
    """How much longer wrong answers are with the one than with the other, in standard errors."""
    one, other = (found[aggregate] for aggregate in AGGREGATES)
    return (one["wrong"] - other["wrong"]) / math.hypot(one["error"], other["error"])


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    named = (("base", BEFORE, "before RL"), ("sequence", LOST, "divided by its length"), ("token", AFTER, "divided by all tokens"))
    for place, (name, colour, _) in enumerate(named):
        for at, kind in ((place, "wrong"), (place + 4, "right")):
            values = [each[name][kind] for each in found]
            axes[0].bar(at, fmean(values), color=colour, alpha=0.6, width=0.8)
            axes[0].plot([at] * len(values), values, "o", color=colour, markersize=3)
    axes[0].set_xticks([1, 5], ["wrong answers", "right answers"])
    axes[0].set(title="tokens, held-out prompts")
    for name, colour, label in named[1:]:
        over_seeds(axes[1], range(1, STEPS + 1), [each["by_step"][name] for each in found], colour, label)
    axes[1].axhline(fmean(each["base"]["wrong"] for each in found), color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
    axes[1].set(xlabel="steps of RL", title="tokens an answer, right or wrong")
    axes[1].legend(frameon=False, labelcolor=INK, loc="upper right")


CLAIM = Claim(
    says="GRPO's division by each answer's own length makes wrong answers longer; a mean over tokens (Dr. GRPO, DAPO) does not",
    source="Liu et al. 2025, arXiv:2503.20783",
    setup=f"A model of 0.13 M parameters says one of four letters, of which one is right, and then any number of dots; {STEPS} steps "
    f"of GRPO (128 prompts, 8 answers) for the letter alone, with aggregate: sequence and with aggregate: token. {NUM_PROMPTS} "
    f"held-out prompts, {MANY} answers each. Tried beforehand too: 32 prompts, of which chance moved the lengths by a seventh; "
    "a sixth of the rate, and digits that the model could not tell apart, wrong answers growing in neither of the two. Tried "
    "afterwards: 256 prompts at half of the rate, a tenth. What seeds differ by is larger than what either of these changed.",
    measure=measure,
    criteria=(
        Criterion(
            "divided by its length, wrong answers grow by 20 % or more",
            lambda f: growth(f, "sequence") >= 0.2,
            lambda f: f"{f['base']['wrong']:.1f} → {f['sequence']['wrong']:.1f}",
        ),
        Criterion(
            "divided by all tokens, they stay within 10 %",
            lambda f: abs(growth(f, "token")) <= 0.1,
            lambda f: f"{f['base']['wrong']:.1f} → {f['token']['wrong']:.1f}",
        ),
        Criterion("the two are more than 2 standard errors apart", lambda f: apart(f) > 2, lambda f: f"{apart(f):.1f}"),
    ),
    draw=draw,
    panels=2,
)
