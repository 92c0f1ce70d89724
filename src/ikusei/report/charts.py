"""Which metrics of a run become charts, in what order, with which notes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ikusei.eval_metrics.format import digits, ordering
from ikusei.intervals import mean_interval
from ikusei.report import svg as plots
from ikusei.report.eval_charts import Picture
from ikusei.run.health import FOR_LARGE_MODELS, HEALTHY
from ikusei.run.read import Evaluation, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHARTS = (  # metric, or two that are drawn together; title; whether it is a share; whether it is shown at once
    (("reward",), "Reward", False, True),
    (("accuracy",), "Pairs in the right order", True, True),
    (("margin",), "Margin: reward of the better less that of the worse", False, True),
    (("rewards/accuracies",), "Pairs whose chosen answer is preferred", True, True),
    (("rewards/chosen", "rewards/rejected"), "Implicit rewards", False, True),
    (("rewards/margins",), "Margin of implicit rewards", False, True),
    (("logps/chosen", "logps/rejected"), "Log-probability of the answers, nats", False, True),
    (("loss",), "Loss", False, True),
    (("replay/loss",), "Loss on the replayed text", False, True),
    (("pairs/left",), "Pairs left after filtering", False, True),
    (("rows",), "Rows collected", False, True),
    (("thoughts/mean_length",), "Length of thoughts, characters", False, True),
    (("thoughts/empty",), "Empty thoughts", True, True),
    (("completions/clipped_ratio",), "Answers cut off at the limit", True, True),
    (("objective/kl",), "KL from the reference, nats an answer", False, True),
    (("gold/agreement",), "Does the reward order answers as the gold does? (correlation)", False, True),
    (("completions/mean_length",), "Length of answers, tokens", False, False),
    (("completions/repetition",), "What answers repeat of themselves", True, False),
    (("completions/duplicates",), "Answers that were given to another prompt too", True, False),
    (("reward/length",), "Does the reward go with length? (correlation)", False, False),
    (("advantage/effective",), "How evenly the answers weigh in the update", True, False),
    (("groups/no_signal",), "Groups that teach nothing", True, False),
    (("groups/all_zero",), "Groups without a right answer", True, False),
    (("groups/all_full",), "Groups without a wrong answer", True, False),
    (("entropy",), "Entropy, nats a token", False, False),
    (("kl",), "KL from the reference", False, False),
    (("loss/policy",), "Loss of the policy", False, False),
    (("loss/value",), "Loss of the critic", False, False),
    (("mean_reward",), "Mean reward of all answers", False, False),
    (("sampling/logp_gap",), "Log-probs: sampler against trainer", False, False),
    (("grad_norm",), "Norm of the gradient", False, False),
    (("learning_rate",), "Learning rate", False, False),
)
OF_IMPLICIT = "how the model itself values them; where there is a reference, against it"


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    note: str
    shown: bool


def charts(record: RunRecord) -> Iterator[Chart]:
    """Of the metrics that the run recorded at two steps or more; the gold rewards first."""
    for name in (spec["name"] for spec in record.settings.get("rewards") or [] if spec.get("gold")):
        if len(record.line(f"rewards/{name}/mean")[0]) > 1:
            yield of_gold(record, name)
            yield from against_kl(record, name)
    for metrics, title, share, shown in CHARTS:
        found = [(metric, *record.line(metric)) for metric in metrics]
        if not all(len(steps) > 1 for _, steps, _ in found) or (metrics == ("loss",) and record.finite("reward")):
            continue  # beside a reward the loss is near 0 by construction and says nothing
        lines = {metric.rpartition("/")[2]: plots.Line(steps, values, share=share) for metric, steps, values in found}
        if len(lines) > 1:
            note = falling(record) if "logps/chosen" in metrics else OF_IMPLICIT
            yield Chart(title, plots.together(metrics[0], lines), note, shown)
        else:
            yield one_metric(record, metrics[0], title, share, shown)


def of_gold(record: RunRecord, name: str) -> Chart:
    """On the prompts that are trained on, and where it was measured on held-out ones."""
    steps, values = record.line(f"rewards/{name}/mean")
    held_out = [(made.step, made.intervals[f"rewards/{name}"]) for made in record.evaluations if f"rewards/{name}" in made.intervals]
    line = plots.Line(steps, values, points=held_out, marks=alarms_at(record))
    note = "points: on held-out prompts, 95% intervals" + ("; dashed: alarms" if line.marks else "")
    return Chart(f"{name}, which is not trained on", plots.by_step(f"rewards/{name}", line, None), note, True)


def against_kl(record: RunRecord, name: str) -> Iterator[Chart]:
    """What is trained on and a gold reward over how far the policy has gone, where that was measured: the plot of arXiv:2210.10760."""
    found = [(kl_of(row), row.get("reward"), row.get(f"rewards/{name}/mean")) for row in record.rows]
    rows = [(kl, reward, gold) for kl, reward, gold in found if kl is not None and reward is not None and gold is not None]
    if len(rows) < 2:
        return
    roots = [math.sqrt(max(distance, 0.0)) for distance, *_ in rows]

    def draw(axes: Sequence[Axes]) -> None:
        for panel, which, title, colour in zip(axes, (1, 2), ("trained on", name), (plots.LOST, plots.AFTER), strict=True):
            panel.plot(roots, [row[which] for row in rows], "o-", color=colour, linewidth=0.8, markersize=2.5)
            panel.set(title=title, xlabel="√KL, nats an answer")

    note = "a point a step. Where the left still rises and the right falls, the reward is being cheated"
    yield Chart(f"Reward and {name} over √KL", plots.panels(f"{name} over kl", 2, draw), note, True)


def kl_of(row: dict[str, Any]) -> float | None:
    """KL from the reference, nats an answer; of algorithms that tell it by token, times the tokens of an answer."""
    if row.get("objective/kl") is not None:
        return row["objective/kl"]
    by_token, length = row.get("kl"), row.get("completions/mean_length")
    return None if by_token is None or length is None else by_token * length


def alarms_at(record: RunRecord) -> list[int]:
    return sorted({event["step"] for event in record.events if event["kind"] == "alarm"})


def one_metric(record: RunRecord, metric: str, title: str, share: bool, shown: bool) -> Chart:
    steps, values = record.line(metric)
    spread = record.line("reward_std")[1] if metric == "reward" else []
    marks = alarms_at(record) if metric == "reward" else []
    line = plots.Line(steps, values, spread if len(spread) == len(steps) else None, share, marks=marks)
    healthy = (HEALTHY | FOR_LARGE_MODELS).get(metric)
    if healthy and (steps[-1] <= healthy.from_step or record.collects or (metric == "reward" and learns_from_a_model(record))):
        healthy = None
    notes = [f"shaded: healthy, {healthy.note}"] if healthy else []
    notes += ["band: ± one standard deviation"] if line.spread else []
    notes += ["dashed: alarms"] if marks else []
    return Chart(title, plots.by_step(metric, line, healthy), "; ".join(notes), shown)


def learns_from_a_model(record: RunRecord) -> bool:
    """A learned reward has a scale of its own, so nothing is known of its healthy range."""
    return any(spec["path"] == "learned" for spec in record.settings.get("rewards") or [])


def falling(record: RunRecord) -> str:
    """A remark where the chosen answers became less likely: the first and the last third of the steps lie apart."""
    values = record.finite("logps/chosen")
    third = len(values) // 3
    if third > 1:
        first, last = mean_interval(values[:third]), mean_interval(values[-third:])
        if ordering(first, last) == "lower":
            means = f"{digits(first.value)} in the first third of the steps, {digits(last.value)} in the last"
            return (
                f"The chosen answers become less likely too: {means}. Likelihood displacement: what both lose goes to answers that no pair "
                "speaks of. It is usual while the margin grows, and a reason to read what the model writes."
            )
    return "of whole answers; nearer to 0 is likelier"


def calibration(before: Evaluation | None, after: Evaluation | None) -> Picture | None:
    """A reward model's certainty, None where it was not measured."""
    made = {"before": before, "after": after}
    tables = {
        label: [(row["stated"], row["right"]) for row in each.results["calibration"]]
        for label, each in made.items()
        if each and each.results.get("calibration")
    }
    if "after" not in tables:
        return None
    note = "up: how often its order of a pair was right; each point a fifth of the pairs. On the dashed line it is as right as it is sure, "
    return Picture("As right as it is sure? (calibration)", plots.calibration(tables), note + "below it too sure")
