"""The report of a run: one self-contained HTML file, made from the run folder alone.

In order: what changed, with intervals; charts; the model's answers before and after; costs; what went wrong. A run that failed midway, or
was never evaluated, gets a report too, which says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ikusei.eval_metrics.format import duration, plural
from ikusei.report import collection, findings
from ikusei.report.charts import calibration, charts
from ikusei.report.eval_charts import Picture, curves_of, pictures
from ikusei.report.examples import RULE, side_by_side
from ikusei.report.tables import table_of_answers, table_of_rows
from ikusei.run import files
from ikusei.run.read import Evaluation, RunRecord, read_run

ANSWERS, ROWS = "Its answers to held-out prompts, before and after", "On held-out rows, before and after"
PHASES = (("time/sample", "sampling"), ("time/reward", "rewards"), ("time/train", "training"))
TROUBLE = ("warning", "error")
FAILURES = {
    "reward_errors": "raised an error",
    "reward_timeouts": "ran out of time",
    "reward_crashes": "crashed",
    "reward_not_finite": "gave no finite number",
}


def write_report(run_folder: Path) -> Path:
    """Writes report.html into the run folder and returns its path.

    Raises:
        ValueError: it is no run folder.
    """
    record = read_run(run_folder)
    before, after = record.before, record.after
    page = render(
        "report.html.j2",
        **heading(record, run_folder),
        cards=list(findings.cards(record)),
        words=list(findings.words(record)),
        charts=list(charts(record)),
        nothing_drawn="No step was recorded.",
        tables={ANSWERS: table_of_answers(before, after), ROWS: table_of_rows(before, after)},
        measured_on=measured_on(record),
        pictures=list(pictured(before, after)),
        examples=collection.examples(record),
        rule=collection.RULE if record.collects else RULE,
        questions=side_by_side(before.samples, after.samples) if before and after else [],
        costs=costs([record]),
        spent=list(spent([record])),
        alarms=alarms(record),
        trouble=trouble(record),
        failures=list(failures(record)),
        recipe=record.recipe,
    )
    files.write_text(run_folder / "report.html", page)
    return run_folder / "report.html"


def pictured(before: Evaluation | None, after: Evaluation | None) -> Iterator[Picture]:
    """Charts of the evaluations: a reward model's calibration, and the answers of a language model."""
    certainty = calibration(before, after)
    if certainty is not None:
        yield certainty
    if after and after.pass_at:
        both = [before, after] if before and findings.shared(before, after) else [after]
        yield from pictures([curves_of(made.name, made) for made in both])


def heading(record: RunRecord, run_folder: Path) -> dict[str, Any]:
    """The head of the page; for a run that did not finish, how it ended."""
    how = {
        "failed": "failed",
        "interrupted": "was interrupted",
        "paused": "was paused by the watch",
        "running": "has not ended, or was killed",
        "finished": "finished",
    }
    status = record.about["status"]
    return {
        "about": record.about,
        "subtitle": f"{run_folder.name} · {plural(record.step, 'step')} · {duration(record.seconds)} · {status}",
        "unfinished": f"This run {how[status]} after step {record.step}. What follows is what it has left so far.",
        "failure": [event["text"] for event in record.events if event["kind"] == "error"][-1:],
    }


def measured_on(record: RunRecord) -> dict[str, str]:
    """Under each table, how many prompts or rows it was measured on."""
    before, after, notes = record.before, record.after, dict[str, str]()
    for made in filter(None, (before, after)):
        of = made.results
        same = ", the same before and after" if before and after else ""
        if made.sampled:
            counts = f"{plural(of['num_prompts'], 'held-out prompt')}, {plural(of['num_samples'], 'sample')} of each{same}."
            notes[ANSWERS] = f"{counts} In brackets 95% intervals over prompts. {pass_rule(record)}"
        if "num_rows" in of:
            notes[ROWS] = f"{plural(of['num_rows'], 'row')} that it does not learn from{same}. In brackets 95% intervals over rows."
        else:
            notes[ROWS] = f"Rows that it does not learn from{same}. In brackets 95% intervals over rows."
    if before and before.is_its_own_reference:
        notes[ROWS] += " Before the first step implicit rewards are 0 by definition: the model is its own reference."
    return notes


def pass_rule(record: RunRecord) -> str:
    least = record.settings.get("eval", {}).get("pass_at", 1.0)
    return f"pass@k: at least one of k samples is right, which it is when its reward is {least:g} or more."


def render(template: str, **context: Any) -> str:
    """Render a template of this folder. A variable that the template lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return pages.get_template(template).render(**context)


def costs(records: Sequence[RunRecord]) -> list[tuple[str, str, float]]:
    """(phase, how long, share of the whole) over all of these runs."""
    phases: dict[str, float] = {}
    for record in records:
        for label, seconds in phases_of(record):
            phases[label] = phases.get(label, 0.0) + seconds
    whole = sum(phases.values())
    return [(label, duration(seconds), seconds / whole) for label, seconds in phases.items() if seconds > 0]


def phases_of(record: RunRecord) -> list[tuple[str, float]]:
    """(phase, seconds). A run without sampling trains the whole step long."""
    phases = [(label, sum(record.finite(metric))) for metric, label in PHASES]
    if not any(seconds for _, seconds in phases):
        phases = [(label, 0.0) for _, label in PHASES[:-1]] + [("training", sum(record.finite("time/step")))]
    phases.append(("evaluation", sum(made.results.get("seconds") or 0.0 for made in record.evaluations)))
    rest = max(record.seconds - sum(seconds for _, seconds in phases), 0.0)
    return [*phases, ("collecting", rest) if record.collects else ("rest: loading, saving, steps taken again", rest)]


def spent(records: Sequence[RunRecord]) -> Iterator[tuple[str, str]]:
    """(number, of what): tokens over all of these runs, memory at the highest peak."""
    for metric, label in (("tokens_sampled", "tokens sampled"), ("num_tokens", "tokens trained on")):
        total = sum(max(record.finite(metric), default=0.0) for record in records)
        if total > 0:
            yield f"{total:,.0f}", label
    peaks = [value for record in records for value in record.finite("memory/peak_mb")]
    if peaks:
        yield f"{max(peaks):,.0f}", "MB of memory at the peak"


def alarms(record: RunRecord) -> list[dict[str, Any]]:
    """What the watch raised."""
    return [event for event in record.events if event["kind"] == "alarm"]


def trouble(record: RunRecord) -> list[str]:
    """Warnings and errors, each once."""
    return list(dict.fromkeys(event["text"] for event in record.events if event["kind"] in TROUBLE))


def failures(record: RunRecord) -> Iterator[str]:
    """How often each reward failed over the whole run, and how."""
    for metric in sorted({key for row in record.rows for key in row}):
        kind, _, name = metric.partition("/")
        if kind in FAILURES:
            yield f"reward {name}: {FAILURES[kind]} {sum(record.finite(metric)):,.0f} ×"
