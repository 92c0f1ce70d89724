"""The report of a pipeline: what the model could do at the start and at the end, and what each stage contributed.

Figures of two stages are compared only where they were measured alike: same prompts, same judges, same sampling. Everything else is in the
stages' own reports, which this page links to. A pipeline that ended midway gets a page that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ikusei.eval_metrics import answers, rows
from ikusei.eval_metrics.format import above_or_below, duration, estimate, gained, ordering, percent, plural, span
from ikusei.intervals import Interval
from ikusei.report import collection, findings
from ikusei.report import svg as plots
from ikusei.report.charts import Chart
from ikusei.report.findings import Card
from ikusei.report.run import alarms, costs, failures, render, spent, trouble
from ikusei.run import files
from ikusei.run.comparison import between
from ikusei.run.read import Evaluation, RunRecord, read_run

START = "start"
MASS_CHART = "lens.svg"  # P(set) by stage, where the pipeline drew it


@dataclass(frozen=True)
class StageRecord:
    """One stage; `record` is None where it has not begun."""

    folder: str
    name: str
    record: RunRecord | None
    has_report: bool

    @property
    def status(self) -> str:
        return self.record.about["status"] if self.record else "not begun"


@dataclass(frozen=True)
class StageEvaluation:
    """An evaluation of answers, and after or before which stage it was made."""

    label: str
    record: RunRecord
    made: Evaluation
    is_before: bool  # made before the stage, not after it


@dataclass(frozen=True)
class StageLine:
    """A stage's row in the table."""

    stage: StageRecord
    did: str
    steps: str
    time: str
    figures: list[str]


def write_overview(run_folder: Path, stages: Sequence[str]) -> Path:
    """Writes report.html into the folder of a pipeline and returns its path. `stages` are the names of its stages' folders, in order.

    Raises:
        ValueError: it is no run folder.
    """
    pipeline = read_run(run_folder)
    each = [read_stage(run_folder, name) for name in stages]
    records = [stage.record for stage in each if stage.record]
    seconds = sum(record.seconds for record in records)
    every = list(points_of(each))
    points = alike(every)
    lens = run_folder / MASS_CHART
    page = render(
        "overview.html.j2",
        about=pipeline.about,
        subtitle=f"{run_folder.name} · {plural(len(each), 'stage')} · {duration(seconds)} · {pipeline.about['status']}",
        unfinished=unfinished(each, pipeline),
        failure=[event["text"] for record in [*records, pipeline] for event in record.events if event["kind"] == "error"][-1:],
        cards=list(cards(points)),
        words=list(words(points, every)),
        charts=list(charts(points)),
        nothing_drawn="",  # the sentences have said why
        lens=plots.without_style(lens.read_text(encoding="utf-8")) if lens.is_file() else None,
        lines=[line_of(stage) for stage in each],
        costs=costs(records),
        spent=list(spent(records)),
        alarms=[{**alarm, "name": f"{s.name}: {alarm['name']}"} for s in each if s.record for alarm in alarms(s.record)],
        trouble=[*trouble(pipeline), *(f"{s.name}: {text}" for s in each if s.record for text in trouble(s.record))],
        failures=[f"{s.name}: {text}" for s in each if s.record for text in failures(s.record)],
        recipe=pipeline.recipe,
    )
    files.write_text(run_folder / "report.html", page)
    return run_folder / "report.html"


def read_stage(run_folder: Path, folder: str) -> StageRecord:
    path = run_folder / folder
    record = read_run(path) if (path / "run.json").is_file() else None
    return StageRecord(folder, folder.partition("-")[2], record, (path / "report.html").is_file())


def unfinished(stages: Sequence[StageRecord], pipeline: RunRecord) -> str:
    """For a pipeline that did not finish: where it stopped."""
    how = {
        "failed": "failed",
        "interrupted": "was interrupted",
        "paused": "was paused by the watch",
        "running": "has not ended, or was killed",
    }
    at = next((stage for stage in stages if stage.status != "finished"), None)
    where = f"in stage {stages.index(at) + 1} of {len(stages)}, {at.name}" if at else "after its last stage"
    return f"This pipeline {how.get(pipeline.about['status'], 'ended')} {where}. What follows is what it has left so far."


def points_of(stages: Sequence[StageRecord]) -> Iterator[StageEvaluation]:
    """Every evaluation of answers in the pipeline, in order."""
    trained = False
    for stage in stages:
        if stage.record is None:
            continue
        if stage.record.before and stage.record.before.sampled:
            yield StageEvaluation(f"before {stage.name}" if trained else START, stage.record, stage.record.before, is_before=True)
        if stage.record.after and stage.record.after.sampled:
            yield StageEvaluation(stage.name, stage.record, stage.record.after, is_before=False)
        trained = trained or raises_a_model(stage.record)


def raises_a_model(record: RunRecord) -> bool:
    """Whether the stage trains a language model: not one that collects or trains a reward model."""
    return not (record.collects or (record.after and "agreement" in record.after.results))


def alike(every: Sequence[StageEvaluation]) -> list[StageEvaluation]:
    """Evaluations that were made like the last one after a stage: the first of them, then those after a stage."""
    ends = [point for point in every if not point.is_before]
    same = [point for point in every if ends and yardstick(point) == yardstick(ends[-1])]
    return same[:1] + [point for point in same[1:] if not point.is_before]


def yardstick(point: StageEvaluation) -> tuple[Any, ...]:
    """What a figure depends on besides the model: prompts, judges, sampling, and the threshold for a right answer."""
    settings = point.record.settings
    specs = settings.get("rewards") or []
    judges = [spec for spec in specs if spec["gold"]] or specs or [settings.get("eval_task", settings["task"])["name"]]
    prompts = sorted({row["prompt_id"] for row in point.made.samples})
    return prompts, judges, settings["sampling"], settings["eval"]["pass_at"], point.made.results["num_samples"]


def figures_of(points: Sequence[StageEvaluation]) -> list[tuple[str, str, bool]]:
    """(figure, label, whether it is a share) of the figures that the first and the last evaluation have."""
    both = points[0].made.intervals.keys() & points[-1].made.intervals.keys()
    gold = [f"rewards/{spec['name']}" for spec in points[-1].record.settings.get("rewards") or [] if spec["gold"]]
    found = [("pass@1", large("pass@1"), True)]
    if findings.tells_more(points[0].made, points[-1].made) and len(gold) < 2:
        found.append(("reward", f"reward {gold[0].removeprefix('rewards/')}, gold" if gold else large("reward"), False))
    found += [(key, f"reward {key.removeprefix('rewards/')}, gold", False) for key in gold if len(gold) > 1]
    return [each for each in found if each[0] in both]


def large(name: str) -> str:
    """A figure's name among the large figures."""
    return next(figure.large for figure in answers.FIGURES if figure.name == name)


def cards(points: Sequence[StageEvaluation]) -> Iterator[Card]:
    if len(points) > 1:
        for key, label, share in figures_of(points):
            yield findings.pair(label, points[0].made.intervals[key], points[-1].made.intervals[key], share)


def words(points: Sequence[StageEvaluation], every: Sequence[StageEvaluation]) -> Iterator[str]:
    """Sentences about start and end, which claim no more than the intervals do."""
    if len(points) < 2:
        yield "What the pipeline has gained is not known: its answers were not measured at two places in the same way."
        return
    first, last = points[0], points[-1]
    since = {START: "From the start"}.get(first.label, f"From {first.label}" if first.is_before else f"From after {first.label}")
    for key, label, _ in figures_of(points):
        yield f"{since} to after {last.label}, {label}: {change_between(first.made, last.made, key)}"
    other = [point.label for point in every if yardstick(point) != yardstick(last)]
    if other:
        yield f"Not compared, for they were measured on other prompts, by other judges or with other sampling: {', '.join(other)}."


def change_between(first: Evaluation, last: Evaluation, key: str) -> str:
    """The paired difference where answers are right or wrong, else the two intervals."""
    found = between(last, first) if key == "pass@1" else None
    if found is not None:
        unsure = "neither gain nor loss can be claimed: " if above_or_below(found.gains[1]) == "same" else ""
        return f"{unsure}{gained(found.gains[1])}, prompt by prompt."
    return {
        "higher": "more than before, the two intervals lie apart.",
        "lower": "less than before, the two intervals lie apart.",
        "same": "the two intervals overlap, so neither gain nor loss can be claimed.",
    }[ordering(first.intervals[key], last.intervals[key])]


def charts(points: Sequence[StageEvaluation]) -> Iterator[Chart]:
    """Figures of answers by stage; pass@k at the smallest and the largest k."""
    if len(points) < 2:
        return
    labels = [point.label for point in points]
    ks = sorted(set.intersection(*(set(point.made.pass_at) for point in points)))
    if ks:
        lines = {f"pass@{k}": [point.made.pass_at[k] for point in points] for k in dict.fromkeys((ks[0], ks[-1]))}
        note = "bars: 95% intervals over prompts. pass@k: at least one of k samples is right"
        yield Chart("Right answers by stage", plots.by_stage("pass", labels, lines, True), note, True)
    rewards = [(key, label) for key, label, share in figures_of(points) if not share]
    found = {label: [point.made.intervals.get(key) for point in points] for key, label in rewards}
    whole = {label: [each for each in line if each] for label, line in found.items() if None not in line}
    if whole:
        yield Chart("Rewards by stage", plots.by_stage("rewards", labels, whole, False), f"{', '.join(whole)}; bars: 95% intervals", True)


def line_of(stage: StageRecord) -> StageLine:
    record = stage.record
    if record is None:
        return StageLine(stage, "", "–", "–", [])
    return StageLine(stage, what_it_did(record), f"{record.step:,}", duration(record.seconds), list(key_figures(record)))


def what_it_did(record: RunRecord) -> str:
    settings = record.settings
    return f"collected {settings['collect']['kind']}" if record.collects else settings["algorithm"]["name"]


def key_figures(record: RunRecord) -> Iterator[str]:
    """A stage's main figures, before and after it."""
    before, after = record.before, record.after
    if record.collects:
        share = collection.share_of_prompts(record) if record.step else None
        yield plural(len(record.collected), "row") + (f", from {percent(share.value)} ({span(share)}) of the prompts" if share else "")
        return
    of_answers = [("pass@1", large("pass@1"), True)]
    if before and after and findings.tells_more(before, after):
        of_answers.append(("reward", "reward", False))
    measured = [figure for figure in rows.FIGURES if figure.large and after and figure.name in after.intervals]
    of_rows = [(figure.name, figure.large, figure.share) for figure in measured[:1]]
    for key, label, share in [*of_answers, *of_rows]:
        old, new = (made.intervals.get(key) if made else None for made in (before, after))
        if old or new:
            yield before_to_after(label, old, new, share)


def before_to_after(label: str, old: Interval | None, new: Interval | None, share: bool) -> str:
    if old is None or new is None:
        return f"{label} {estimate(old or new, share)}{'' if new else ' before it'}"
    return f"{label} {estimate(old, share)} → {estimate(new, share)}"
