"""Pages of one evaluation and of a comparison: self-contained HTML with figures, charts, and the prompts that only one model solves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ikusei.eval_metrics.format import above_or_below, estimate, gained, plural
from ikusei.intervals import mean_interval
from ikusei.report import findings
from ikusei.report.eval_charts import PASS, ModelCurves, curves_of, pictures
from ikusei.report.run import render
from ikusei.report.tables import table_of_answers
from ikusei.run import files
from ikusei.run.comparison import Comparison, Experiment
from ikusei.run.read import Evaluation


def write_evaluation(made: Evaluation, title: str, file: Path) -> Path:
    """The figures of one model. Returns the file."""
    results = made.results
    page = render(
        "compared.html.j2",
        title=title,
        subtitle=f"{plural(results['num_prompts'], 'held-out prompt')}, {plural(results['num_samples'], 'sample')} of each",
        words=[],
        columns=("", "value"),
        rows=[(f"{row.label}{f' ({row.note})' if row.note else ''}", row.after) for row in table_of_answers(None, made)],
        pictures=list(pictures([curves_of(title, made)])),
        lists={},
    )
    files.write_text(file, page)
    return file


def write_comparison(found: Comparison, one: Experiment, other: Experiment, file: Path) -> Path:
    """`one` less `other`. Returns the file."""
    one, other = (replace(each, name=name) for each, name in zip((one, other), short(one.name, other.name), strict=True))
    ks = sorted(found.gains)
    levels = {each.name: [mean_interval(list(each.pass_at(k).values())) for k in ks] for each in (other, one)}
    rows = [
        (f"pass@{k}", *(estimate(levels[name][i], True) for name in (other.name, one.name)), gained(found.gains[k], named=""))
        for i, k in enumerate(ks)
    ]
    verdict = {"higher": "is right more often than", "lower": "is right less often than", "same": "cannot be told apart at one try from"}
    samples = f"{plural(other.samples, 'sample')} of each" + (f" and {one.samples}" if one.samples != other.samples else "")
    page = render(
        "compared.html.j2",
        title=f"{one.name} and {other.name}",
        subtitle=f"{plural(len(one.right), 'held-out prompt')}, {samples}",
        words=[
            f"{one.name} {verdict[above_or_below(found.gains[1])]} {other.name}: {gained(found.gains[1])}, prompt by prompt.",
            *findings.within_reach(found, found.most, one.name, other.name),
        ],
        columns=("", other.name, one.name, "difference, prompt by prompt"),
        rows=[*rows, ("length, tokens", "", "", gained(found.length, share=False, named=""))],
        pictures=list(pictures([curves_of_experiment(each, ks) for each in (other, one)])),
        lists={f"Only {one.name} solves": found.only_one, f"Only {other.name} solves": found.only_other},
    )
    files.write_text(file, page)
    return file


def short(*names: str) -> tuple[str, ...]:
    """The last part of each path, where that tells them apart."""
    last = tuple(",".join(Path(part).name for part in name.split(",")) for name in names)
    return last if len(set(last)) == len(names) else names


def curves_of_experiment(experiment: Experiment, ks: list[int]) -> ModelCurves:
    curve = {k: mean_interval(list(experiment.pass_at(k).values())) for k in ks}
    return ModelCurves(experiment.name, {PASS: curve}, experiment.pass_at(1))
