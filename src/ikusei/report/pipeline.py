"""The report of a road: what the model could do at its start and can do at its end, and what each stage had in it.

Figures of two stages stand beside each other only where they were measured alike: the same prompts, the same judges, the same sampling.
The rest of what a stage measured is in its own report, which this page leads to. A road that ended midway gets a page that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ikusei.intervals import Interval
from ikusei.report import collection, findings, plots
from ikusei.report.charts import Chart
from ikusei.report.findings import Card
from ikusei.report.format import above_or_below, compare, duration, estimate, gained, percent, plural, span
from ikusei.report.run import alarms, costs, failures, render, spent, trouble
from ikusei.run import files
from ikusei.run.comparison import between
from ikusei.run.read import Evaluation, Story, read_story

START = "start"
LENS = "lens.svg"  # P(set) by stage, where the road drew it
KEY_FIGURES = (  # of a stage, the first that it has after the figures of its answers: name, label, whether it is a share
    ("accuracy", "pairs in the right order", True),
    ("rewards/accuracies", "chosen answer preferred", True),
    ("bits_per_byte", "bits per byte", False),
    ("loss", "held-out loss", False),
)


@dataclass(frozen=True)
class Stage:
    """One stage as far as it came; no story where it has not begun."""

    folder: str
    name: str
    story: Story | None
    has_report: bool

    @property
    def status(self) -> str:
        return self.story.about["status"] if self.story else "not begun"


@dataclass(frozen=True)
class Point:
    """A measurement of answers, and where on the road it was made."""

    label: str
    story: Story
    made: Evaluation
    is_before: bool  # made before the stage, not after it


@dataclass(frozen=True)
class Line:
    """A stage in the table."""

    stage: Stage
    did: str
    steps: str
    time: str
    figures: list[str]


def write_overview(run_folder: Path, stages: Sequence[str]) -> Path:
    """Writes report.html into the folder of a road and returns its path. `stages` are the names of its stages' folders, in order.

    Raises:
        ValueError: it is no run folder.
    """
    road = read_story(run_folder)
    each = [read_stage(run_folder, name) for name in stages]
    stories = [stage.story for stage in each if stage.story]
    every = list(points_of(each))
    points = alike(every)
    lens = run_folder / LENS
    page = render(
        "overview.html.j2",
        about=road.about,
        subtitle=f"{run_folder.name} · {plural(len(each), 'stage')} · {duration(sum(s.seconds for s in stories))} · {road.about['status']}",
        unfinished=unfinished(each, road),
        failure=[event["text"] for story in [*stories, road] for event in story.events if event["kind"] == "error"][-1:],
        cards=list(cards(points)),
        words=list(words(points, every)),
        charts=list(charts(points)),
        nothing_drawn="",  # the sentences have said why
        lens=plots.without_style(lens.read_text(encoding="utf-8")) if lens.is_file() else None,
        lines=[line_of(stage) for stage in each],
        costs=costs(stories),
        spent=list(spent(stories)),
        alarms=[{**alarm, "name": f"{s.name}: {alarm['name']}"} for s in each if s.story for alarm in alarms(s.story)],
        trouble=[*trouble(road), *(f"{s.name}: {text}" for s in each if s.story for text in trouble(s.story))],
        failures=[f"{s.name}: {text}" for s in each if s.story for text in failures(s.story)],
        recipe=road.recipe,
    )
    files.write_text(run_folder / "report.html", page)
    return run_folder / "report.html"


def read_stage(run_folder: Path, folder: str) -> Stage:
    path = run_folder / folder
    story = read_story(path) if (path / "run.json").is_file() else None
    return Stage(folder, folder.partition("-")[2], story, (path / "report.html").is_file())


def unfinished(stages: Sequence[Stage], road: Story) -> str:
    """Of a road that did not come to its end, where it stopped."""
    how = {
        "failed": "failed",
        "interrupted": "was interrupted",
        "paused": "was paused by the watch",
        "running": "has not ended, or was killed",
    }
    at = next((stage for stage in stages if stage.status != "finished"), None)
    where = f"in stage {stages.index(at) + 1} of {len(stages)}, {at.name}" if at else "after its last stage"
    return f"This road {how.get(road.about['status'], 'ended')} {where}. What follows is what it has left so far."


def points_of(stages: Sequence[Stage]) -> Iterator[Point]:
    """Every measurement of answers along the road, in order."""
    trained = False
    for stage in stages:
        if stage.story is None:
            continue
        if stage.story.before and stage.story.before.sampled:
            yield Point(f"before {stage.name}" if trained else START, stage.story, stage.story.before, is_before=True)
        if stage.story.after and stage.story.after.sampled:
            yield Point(stage.name, stage.story, stage.story.after, is_before=False)
        trained = trained or raises_a_model(stage.story)


def raises_a_model(story: Story) -> bool:
    """False for a stage that collects or makes a reward model: the model that answers is the same after it."""
    return not (story.collects or (story.after and "agreement" in story.after.results))


def alike(every: Sequence[Point]) -> list[Point]:
    """Those that were measured as the last stage that was measured to its end; the first, and then what stands after a stage."""
    ends = [point for point in every if not point.is_before]
    same = [point for point in every if ends and yardstick(point) == yardstick(ends[-1])]
    return same[:1] + [point for point in same[1:] if not point.is_before]


def yardstick(point: Point) -> tuple[Any, ...]:
    """What a figure of answers depends on besides the model: prompts, judges, sampling, and what counts as right."""
    settings = point.story.settings
    specs = settings.get("rewards") or []
    judges = [spec for spec in specs if spec["gold"]] or specs or [settings.get("eval_task", settings["task"])["name"]]
    prompts = sorted({row["prompt_id"] for row in point.made.samples})
    return prompts, judges, settings["sampling"], settings["eval"]["pass_at"], point.made.results["num_samples"]


def figures_of(points: Sequence[Point]) -> list[tuple[str, str, bool]]:
    """(figure, label, whether it is a share) of what can be told from the first point to the last."""
    both = points[0].made.intervals.keys() & points[-1].made.intervals.keys()
    gold = [f"rewards/{spec['name']}" for spec in points[-1].story.settings.get("rewards") or [] if spec["gold"]]
    found = [("pass@1", "right at the first try", True)]
    if findings.tells_more(points[0].made, points[-1].made) and len(gold) < 2:
        found.append(("reward", f"reward {gold[0].removeprefix('rewards/')}, gold" if gold else "reward of an answer", False))
    found += [(key, f"reward {key.removeprefix('rewards/')}, gold", False) for key in gold if len(gold) > 1]
    return [each for each in found if each[0] in both]


def cards(points: Sequence[Point]) -> Iterator[Card]:
    if len(points) > 1:
        for key, label, share in figures_of(points):
            yield findings.pair(label, points[0].made.intervals[key], points[-1].made.intervals[key], share)


def words(points: Sequence[Point], every: Sequence[Point]) -> Iterator[str]:
    """From the start to the end, in sentences that claim no more than the intervals do."""
    if len(points) < 2:
        yield "What the road has gained is not known: its answers were not measured at two places in the same way."
        return
    first, last = points[0], points[-1]
    since = {START: "From the start"}.get(first.label, f"From {first.label}" if first.is_before else f"From after {first.label}")
    for key, label, _ in figures_of(points):
        yield f"{since} to after {last.label}, {label}: {change_between(first.made, last.made, key)}"
    other = [point.label for point in every if yardstick(point) != yardstick(last)]
    if other:
        yield f"Not compared, for they were measured on other prompts, by other judges or with other sampling: {', '.join(other)}."


def change_between(first: Evaluation, last: Evaluation, key: str) -> str:
    """Prompt by prompt where answers are right or wrong, else by the two intervals."""
    found = between(last, first) if key == "pass@1" else None
    if found is not None:
        unsure = "neither gain nor loss can be claimed: " if above_or_below(found.gains[1]) == "same" else ""
        return f"{unsure}{gained(found.gains[1])}, prompt by prompt."
    return {
        "higher": "more than before, the two intervals lie apart.",
        "lower": "less than before, the two intervals lie apart.",
        "same": "the two intervals overlap, so neither gain nor loss can be claimed.",
    }[compare(first.intervals[key], last.intervals[key])]


def charts(points: Sequence[Point]) -> Iterator[Chart]:
    """The figures of answers by stage; of pass@k the first and the largest k."""
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


def line_of(stage: Stage) -> Line:
    story = stage.story
    if story is None:
        return Line(stage, "", "–", "–", [])
    return Line(stage, what_it_did(story), f"{story.step:,}", duration(story.seconds), list(key_figures(story)))


def what_it_did(story: Story) -> str:
    settings = story.settings
    return f"collected {settings['collect']['kind']}" if story.collects else settings["algorithm"]["name"]


def key_figures(story: Story) -> Iterator[str]:
    """What a stage is to be judged by, before and after it."""
    before, after = story.before, story.after
    if story.collects:
        share = collection.share_of_prompts(story) if story.step else None
        yield plural(len(story.collected), "row") + (f", from {percent(share.value)} ({span(share)}) of the prompts" if share else "")
        return
    of_answers = [("pass@1", "right at the first try", True)]
    if before and after and findings.tells_more(before, after):
        of_answers.append(("reward", "reward", False))
    of_rows = [each for each in KEY_FIGURES if after and each[0] in after.intervals][:1]
    for key, label, share in [*of_answers, *of_rows]:
        old, new = (made.intervals.get(key) if made else None for made in (before, after))
        if old or new:
            yield told(label, old, new, share)


def told(label: str, old: Interval | None, new: Interval | None, share: bool) -> str:
    if old is None or new is None:
        return f"{label} {estimate(old or new, share)}{'' if new else ' before it'}"
    return f"{label} {estimate(old, share)} → {estimate(new, share)}"
