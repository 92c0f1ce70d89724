"""The charts of evaluations: what many tries reach, what one choice among many is worth, prompt by prompt, and how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ikusei.intervals import Interval
from ikusei.report.plots import AFTER, BEFORE, GRID, INK, LOST, svg
from ikusei.run.read import Evaluation

Curve = Mapping[int, Interval]  # by k
Rows = Sequence[Mapping[str, Any]]
BINS = 5


@dataclass(frozen=True)
class Picture:
    title: str
    svg: str
    note: str


@dataclass(frozen=True)
class Measured:
    """A model as it was measured: its curves by name (pass, maj, bon, guess, commonest), and by prompt the share of samples that are
    right and, where it was asked for, whether the likeliest answer is."""

    label: str
    curves: Mapping[str, Curve]
    shares: Mapping[str, float]
    greedy: Mapping[str, bool] = field(default_factory=dict)


def measured(label: str, made: Evaluation) -> Measured:
    curves = {name: curve for name in ("pass", "maj", "bon", "guess", "commonest") if (curve := made.curve(name))}
    return Measured(
        label,
        curves,
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


def pictures(models: Sequence[Measured]) -> Iterator[Picture]:
    """Of one model, or of two on the same prompts, the second being the one that matters."""
    if all("pass" in model.curves for model in models):
        note = "bands: 95% intervals"
        if len(models) == 2:
            note += f". Where the curves meet, “{models[0].label}” reaches as far as “{models[1].label}”, given as many tries"
        note += ". Dashed: guessing without reading the question" if "guess" in models[-1].curves else ""
        yield Picture("Right within k tries (pass@k)", tries(models), note)
    if all(len(model.curves.get("maj", ())) > 1 for model in models):
        note = "maj@k: the answer that most of k give"
        note += "; dotted, bon@k: the one that earns most by what is trained on" if "bon" in models[-1].curves else ""
        yield Picture("One answer chosen among k", choices(models), note)
    if len(models) == 2:
        note = f"share of samples right, across: {models[0].label}, up: {models[1].label}; larger: several prompts"
        yield Picture("Prompt by prompt", scatter(*models), note)
    if all(model.greedy for model in models):
        note = "across: share of a prompt's samples that are right; up: how often the likeliest answer is; the line: as often"
        yield Picture("Is the likeliest answer right where most samples are?", calibration(models), note)


def tries(models: Sequence[Measured]) -> str:
    """pass@k over k (doubling) with the intervals as bands, as SVG."""

    def draw(axes: Axes) -> None:
        for model, colour in zip(models, (BEFORE, AFTER)[-len(models) :], strict=True):
            banded(axes, model.curves["pass"], colour, model.label)
        for name, dash in (("guess", (4, 3)), ("commonest", (1, 2))):
            curve = models[-1].curves.get(name, {})
            axes.plot(list(curve), [each.value for each in curve.values()], color=INK, linewidth=1, linestyle=(0, dash))
        over_k(axes, [model.curves["pass"] for model in models])

    return svg("pass_at_k", draw)


def choices(models: Sequence[Measured]) -> str:
    """maj@k over k, and bon@k where it was measured, as SVG."""

    def draw(axes: Axes) -> None:
        for model, colour in zip(models, (BEFORE, AFTER)[-len(models) :], strict=True):
            first = {1: model.curves["pass"][1]}
            banded(axes, first | dict(model.curves["maj"]), colour, f"{model.label}: maj@k" if "bon" in model.curves else model.label)
            if "bon" in model.curves:
                curve = first | dict(model.curves["bon"])
                ks = sorted(curve)
                axes.plot(ks, [curve[k].value for k in ks], color=colour, linewidth=1.4, linestyle=(0, (1, 1.5)), label="bon@k")
        over_k(axes, [model.curves["pass"] for model in models])

    return svg("maj_at_k", draw)


def banded(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    ks = sorted(curve)
    axes.fill_between(ks, [curve[k].low for k in ks], [curve[k].high for k in ks], color=colour, alpha=0.16, linewidth=0)
    axes.plot(ks, [curve[k].value for k in ks], color=colour, linewidth=1.6, marker="o", markersize=3.5, label=label)


def over_k(axes: Axes, curves: Sequence[Curve]) -> None:
    ks = sorted({k for curve in curves for k in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("tries k")
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)


def scatter(one: Measured, other: Measured) -> str:
    """Each prompt's share of right samples by `one` (across) and by `other` (up), as SVG."""

    def draw(axes: Axes) -> None:
        places = Counter((one.shares[prompt], other.shares[prompt]) for prompt in one.shares if prompt in other.shares)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        x, y = zip(*places, strict=True) if places else ((), ())
        colours = [AFTER if up > across else LOST if up < across else BEFORE for across, up in places]
        axes.scatter(x, y, s=[14 * count**0.5 for count in places.values()], c=colours, alpha=0.55, linewidths=0, clip_on=False)
        shares(axes, one.label)

    return svg("scatter", draw)


def calibration(models: Sequence[Measured]) -> str:
    """How often the likeliest answer is right (up), by the share of samples that are (across), as SVG."""

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


def fifths(model: Measured) -> list[tuple[float, float, int]]:
    """Of the prompts of each fifth of the scale: the mean share of samples right, how often the likeliest answer is, how many they are."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for prompt, right in model.greedy.items():
        if prompt not in model.shares:
            continue
        bins.setdefault(min(int(model.shares[prompt] * BINS), BINS - 1), []).append((model.shares[prompt], right))
    return [(fmean(x for x, _ in each), fmean(y for _, y in each), len(each)) for _, each in sorted(bins.items())]


def shares(axes: Axes, across: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel=across)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
