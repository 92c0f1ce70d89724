"""The cold start: RL raises what is sampled, so where nothing right is ever sampled there is no signal and no gain; a few demonstrations
are enough for both.

    a group of G answers teaches where these are not all right and not all wrong:   E over prompts [1 - p^G - (1-p)^G]

The forecast is of half of the answers (unbiased in p: pass@G of right answers + pass@G of wrong ones - 1), the share of the other half.
Left out: partial credit and larger groups, which find signal sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ikusei.intervals import pass_at_k
from ikusei.report.svg import AFTER, BEFORE, GRID, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.drawing import over_seeds
from ikusei.reproduce.expressions import MODEL, ROWS, SAMPLING, Expressions, rewarded, shown
from ikusei.reproduce.measuring import answers, held_out, judged
from ikusei.reproduce.workspace import Workspace
from ikusei.rewards.exact import exact
from ikusei.run.comparison import paired
from ikusei.run.read import read_run
from ikusei.types import Sampling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

G, NUM_PROMPTS, MANY = 8, 192, 128
TAUGHT = (0, 25, 100, 400)  # steps of demonstrations
RL_STEPS = 200


def measure(workspace: Workspace) -> SeedResult:
    """By steps of demonstrations: pass@1, the share of groups that teach and its forecast; and pass@1 after RL from the first and last."""
    alone = workspace.train("rl-0", rewarded(workspace, MODEL, RL_STEPS))
    starts = [asked(workspace, "answers-0", alone)]  # where nothing teaches the model stays as it was made
    model: Any = MODEL
    for before, steps in pairwise(TAUGHT):
        made = workspace.train(f"taught-{steps}", shown(workspace, steps - before, model, start=before * ROWS // 1000))
        starts.append(asked(workspace, f"answers-{steps}", made))
        model = str(made / "final")
    last = asked(workspace, "answers-after", workspace.train(f"rl-{TAUGHT[-1]}", rewarded(workspace, model, RL_STEPS)))
    record = read_run(alone)
    rates = [[fmean(map(fmean, row)) for row in each] for each in (*starts, last)]
    before, after = ({str(i): rate for i, rate in enumerate(each)} for each in rates[-2:])
    gain = paired(after, before)
    return {
        "pass": [fmean(each) for each in rates[:-1]],
        "forecast": [fmean(teaches(sum(map(sum, row[: MANY // G // 2])), MANY // 2) for row in each) for each in starts],
        "share": [fmean(0 < sum(group) < G for row in each for group in row[MANY // G // 2 :]) for each in starts],
        "silent": fmean(record.line("groups/no_signal")[1]),
        "first": {"before": record.line("reward")[1][0], "after": fmean(record.line("reward")[1][-10:])},
        "after": fmean(rates[-1]),
        "gain": {"value": gain.value, "low": gain.low},
    }


def asked(workspace: Workspace, name: str, model: Path) -> Any:
    """Of each held-out prompt its answers in groups of G: 1 where right."""

    def make() -> list[list[list[int]]]:
        prompts = held_out(model, Expressions(), NUM_PROMPTS)
        groups = judged(answers(model, prompts, MANY, Sampling(**SAMPLING), workspace.seed), exact)
        return [[[int(total) for total in group.totals[i : i + G]] for i in range(0, MANY, G)] for group in groups]

    return workspace.once(name, make)


def teaches(c: int, n: int) -> float:
    """The chance that G of n answers, c of them right, are not all alike."""
    return pass_at_k(n, c, G) + pass_at_k(n, n - c, G) - 1


def furthest(found: SeedResult) -> float:
    return max(abs(share - forecast) for share, forecast in zip(found["share"], found["forecast"], strict=True))


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    axes[0].plot([0, 1], [0, 1], color=GRID, linewidth=1)
    for each in found:
        axes[0].plot(each["forecast"], each["share"], "o", color=AFTER, markersize=4)
    axes[0].set(xlabel="forecast share of groups that teach", title="share measured")
    places = range(len(TAUGHT))
    over_seeds(axes[1], places, [each["pass"] for each in found], BEFORE, "before RL")
    axes[1].plot([0] * len(found), [each["first"]["after"] for each in found], "o", color=LOST, markersize=5, label="after RL, cold")
    axes[1].plot([places[-1]] * len(found), [each["after"] for each in found], "o", color=AFTER, markersize=5, label="after RL")
    axes[1].set_xticks(places, list(map(str, TAUGHT)))
    axes[1].set(xlabel="steps of demonstrations", title="pass@1")
    axes[1].legend(frameon=False, labelcolor=INK, loc="upper left")


CLAIM = Claim(
    says="Without a right answer among the samples RL has no signal and gains nothing; demonstrations give it both",
    source="DeepSeek-R1, arXiv:2501.12948; DAPO, arXiv:2503.14476",
    setup=f"A model of 0.4 M parameters is shown {', '.join(map(str, TAUGHT[:-1]))} or {TAUGHT[-1]} steps of 64 right answers to "
    f"expressions of three digits; {RL_STEPS} steps of GRPO (32 prompts, {G} answers) from the first and the last. {NUM_PROMPTS} "
    f"held-out prompts, {MANY} answers each.",
    measure=measure,
    criteria=(
        Criterion(
            "the share of groups that teach is within 0.05 of its forecast", lambda f: furthest(f) <= 0.05, lambda f: f"{furthest(f):.3f}"
        ),
        Criterion(
            "without demonstrations 95 % of groups or more teach nothing", lambda f: f["silent"] >= 0.95, lambda f: f"{f['silent']:.1%}"
        ),
        Criterion(
            "and RL gains nothing (below 0.01)",
            lambda f: f["first"]["after"] - f["first"]["before"] < 0.01,
            lambda f: f"{f['first']['before']:.3f} → {f['first']['after']:.3f}",
        ),
        Criterion(
            "with them RL gains: the interval over prompts lies above 0",
            lambda f: f["gain"]["low"] > 0,
            lambda f: f"{f['gain']['value']:+.3f}, from {f['gain']['low']:+.3f} on",
        ),
    ),
    draw=draw,
    panels=2,
)
