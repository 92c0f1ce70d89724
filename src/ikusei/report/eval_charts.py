"""Charts of evaluations: pass@k and choosers over k, right answers prompt by prompt, and calibration of the greedy answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ikusei.eval_metrics import answers
from ikusei.intervals import Interval
from ikusei.report.svg import AFTER, BEFORE, GRID, INK, LOST, in_percent, svg
from ikusei.run.read import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Mapping[int, Interval]  # by k
Rows = Sequence[Mapping[str, Any]]
BINS = 5
PASS = "pass@{k}"


@dataclass(frozen=True)
class Picture:
    title: str
    svg: str
    note: str


@dataclass(frozen=True)
class ModelCurves:
    """A model as charts show it: by the name of a family (`maj@{k}`) its curve over k, and by prompt the share of samples that are right
    and, where it was asked for, whether the greedy answer is."""

    label: str
    curves: Mapping[str, Curve]
    shares: Mapping[str, float]
    greedy: Mapping[str, bool] = field(default_factory=dict)


def curves_of(label: str, made: Evaluation) -> ModelCurves:
    families = [figure for figure in answers.FIGURES if figure.curve]
    return ModelCurves(
        label,
        {figure.name: curve for figure in families if (curve := made.curve(figure.stem))},
        share_right(made.samples),
        {row["prompt_id"]: row["correct"] for row in made.greedy if row.get("total", 0.0) is not None},
    )


def share_right(samples: Rows) -> dict[str, float]:
    """By prompt."""
    found: dict[str, list[bool]] = {}
    for row in samples:
        if row.get("total", 0.0) is None:
            continue  # its reward failed
        found.setdefault(row["prompt_id"], []).append(row["correct"])
    return {prompt: fmean(rights) for prompt, rights in found.items()}


def pictures(models: Sequence[ModelCurves]) -> Iterator[Picture]:
    """Of one model, or of two on the same prompts, the second being the one that matters."""
    for title in dict.fromkeys(figure.curve.chart for figure in answers.FIGURES if figure.curve):
        yield from over_k(title, models)
    if len(models) == 2:
        note = f"share of samples right, across: {models[0].label}, up: {models[1].label}; larger: several prompts"
        yield Picture("Prompt by prompt", scatter(*models), note)
    if all(model.greedy for model in models):
        note = "across: share of a prompt's samples that are right; up: how often the greedy answer is; the line: as often"
        yield Picture("Is the greedy answer right where most samples are?", calibration(models), note)


def over_k(title: str, models: Sequence[ModelCurves]) -> Iterator[Picture]:
    """The chart of this title, where every model has a curve of those that it is about (the bands); pass@1 is where each begins."""
    families = [(figure, figure.curve) for figure in answers.FIGURES if figure.curve and figure.curve.chart == title]
    bands = [(figure, curve) for figure, curve in families if curve.kind == "band"]
    if not all(len(model.curves.get(figure.name, ())) >= curve.fewest for model in models for figure, curve in bands):
        return
    drawn = [(figure, curve) for figure, curve in families if figure.name in models[-1].curves]
    notes = [curve.note for _, curve in drawn if curve.note]
    if len(models) == 2 and title == answers.TRIES:
        notes.insert(1, f"Where the curves meet, “{models[0].label}” reaches as far as “{models[1].label}”, given as many tries")
    several = len([curve for _, curve in drawn if curve.kind != "baseline"]) > 1

    def draw(axes: Axes) -> None:
        for model, colour in zip(models, (BEFORE, AFTER)[-len(models) :], strict=True):
            first = {k: each for k, each in model.curves.get(PASS, {}).items() if k == 1}
            for figure, curve in drawn:
                points = first | dict(model.curves.get(figure.name, {}))
                if curve.kind == "band":
                    banded(axes, points, colour, f"{model.label}: {figure.name.format(k='k')}" if several else model.label)
                elif curve.kind == "line" and figure.name in model.curves:
                    ks, label = sorted(points), figure.name.format(k="k")
                    axes.plot(ks, [points[k].value for k in ks], color=colour, linewidth=1.4, linestyle=(0, curve.dash), label=label)
        for figure, curve in drawn:
            if curve.kind == "baseline":
                baseline = models[-1].curves[figure.name]
                axes.plot(list(baseline), [each.value for each in baseline.values()], color=INK, linewidth=1, linestyle=(0, curve.dash))
        scale_of_k(axes, [model.curves.get(PASS, {}) for model in models])

    yield Picture(title, svg(bands[0][0].stem + "_at_k" if bands else title, draw), ". ".join(notes))


def banded(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    ks = sorted(curve)
    axes.fill_between(ks, [curve[k].low for k in ks], [curve[k].high for k in ks], color=colour, alpha=0.16, linewidth=0)
    axes.plot(ks, [curve[k].value for k in ks], color=colour, linewidth=1.6, marker="o", markersize=3.5, label=label)


def scale_of_k(axes: Axes, curves: Sequence[Curve]) -> None:
    ks = sorted({k for curve in curves for k in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    in_percent(axes.yaxis)
    axes.set_xlabel("tries k")
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)


def scatter(one: ModelCurves, other: ModelCurves) -> str:
    """Each prompt's share of right samples by `one` (across) and by `other` (up), as SVG."""

    def draw(axes: Axes) -> None:
        places = Counter((one.shares[prompt], other.shares[prompt]) for prompt in one.shares if prompt in other.shares)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        x, y = zip(*places, strict=True) if places else ((), ())
        colours = [AFTER if up > across else LOST if up < across else BEFORE for across, up in places]
        axes.scatter(x, y, s=[14 * count**0.5 for count in places.values()], c=colours, alpha=0.55, linewidths=0, clip_on=False)
        shares(axes, one.label)

    return svg("scatter", draw)


def calibration(models: Sequence[ModelCurves]) -> str:
    """How often the greedy answer is right (up), by the share of samples that are (across), as SVG."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        for model, colour in zip(models, (BEFORE, AFTER)[-len(models) :], strict=True):
            points = fifths(model)
            x, y = [each[0] for each in points], [each[1] for each in points]
            axes.plot(x, y, color=colour, linewidth=1.2)
            axes.scatter(x, y, s=[12 * each[2] ** 0.5 for each in points], color=colour, clip_on=False, label=model.label)
        shares(axes, "share of samples right")
        axes.legend(loc="lower right", frameon=False, labelcolor=INK)

    return svg("greedy", draw)


def fifths(model: ModelCurves) -> list[tuple[float, float, int]]:
    """Of the prompts of each fifth of the scale: the mean share of samples right, how often the greedy answer is, how many they are."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for prompt, right in model.greedy.items():
        if prompt not in model.shares:
            continue
        bins.setdefault(min(int(model.shares[prompt] * BINS), BINS - 1), []).append((model.shares[prompt], right))
    return [(fmean(x for x, _ in each), fmean(y for _, y in each), len(each)) for _, each in sorted(bins.items())]


def shares(axes: Axes, across: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel=across)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    in_percent(axes.xaxis, axes.yaxis)
