"""Charts of the report: drawn by matplotlib, returned as SVG that takes the colours and font of its page.

Colours are written as placeholders (#00000n) and replaced by the page's CSS variables, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

from ikusei.intervals import Interval
from ikusei.run.health import Range

if TYPE_CHECKING:  # slow to load, and a run needs it at its end alone
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

INK, GRID, BEFORE, AFTER, HEALTHY, LOST = "#000001", "#000002", "#000003", "#000004", "#000005", "#000006"
VARIABLES = {INK: "--faint", GRID: "--grid", BEFORE: "--before", AFTER: "--after", HEALTHY: "--healthy", LOST: "--bad"}
SIZE_INCHES = (4.8, 2.4)
LIGHT = {  # as in page.html.j2
    "--card": "#ffffff", "--faint": "#6a7064", "--grid": "#e3e3da", "--before": "#8b8fa3", "--after": "#2e7d4f", "--healthy": "#2e7d4f",
    "--bad": "#b9471b",
}  # fmt: skip
DARK = {
    "--card": "#1e211b", "--faint": "#9aa192", "--grid": "#33372e", "--before": "#8f95ad", "--after": "#6cc890", "--healthy": "#6cc890",
    "--bad": "#ee8a5c",
}  # fmt: skip
NUM_BUCKETS = 400  # more than a chart has pixels to tell apart


@dataclass(frozen=True)
class Line:
    """One metric by step; NaN where it was not a number, which is drawn as a gap and a mark."""

    steps: Sequence[int]
    values: Sequence[float]
    spread: Sequence[float] | None = None  # half the height of a band around the line
    share: bool = False  # between 0 and 1, read in per cent
    points: Sequence[tuple[int, Interval]] = ()  # measured apart, at some of the steps
    marks: Sequence[int] = ()  # steps at which an alarm was raised


def by_step(name: str, line: Line, healthy: Range | None) -> str:
    """The chart of one metric, its healthy range shaded, as SVG. `name` keeps its ids apart from those of other charts."""

    def draw(axes: Axes) -> None:
        kept = extremes(line.values, NUM_BUCKETS)
        steps, values = [line.steps[i] for i in kept], [line.values[i] for i in kept]
        spread = [line.spread[i] if line.spread else 0.0 for i in kept]
        tops = [value + half for value, half in zip(values, spread, strict=True)]
        bottoms = [value - half for value, half in zip(values, spread, strict=True)]
        axes.plot(steps, values, color=AFTER, linewidth=1.6, marker="o" if sum(map(math.isfinite, values)) == 1 else "")
        axes.fill_between(steps, bottoms, tops, color=INK, alpha=0.16, linewidth=0)
        for step, interval in line.points:
            axes.plot([step, step], [interval.low, interval.high], color=BEFORE, linewidth=1.6, alpha=0.5)
            axes.plot(step, interval.value, "o", color=BEFORE, markersize=4)
        for step in line.marks:
            axes.axvline(step, color=LOST, linewidth=0.9, linestyle=(0, (3, 3)))
        bottoms, tops = bottoms + [each.low for _, each in line.points], tops + [each.high for _, each in line.points]
        low, high = min(filter(math.isfinite, [*bottoms, 0.0])), max(filter(math.isfinite, [*tops, 0.0]))
        axes.set_ylim(low, high + 0.08 * (high - low) if high > low else low + 1.0)
        lost = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
        axes.plot(lost, [0.04] * len(lost), "x", color=LOST, transform=axes.get_xaxis_transform(), clip_on=False)
        if healthy is not None:
            shade(axes, healthy, line.steps[0], line.steps[-1])
        if line.share:
            in_percent(axes.yaxis)
        mark_steps(axes)

    return svg(name, draw)


def together(name: str, lines: Mapping[str, Line]) -> str:
    """Two metrics by step in one chart, such as those of chosen and rejected answers, told apart by colour and name, as SVG."""

    def draw(axes: Axes) -> None:
        for (label, line), colour in zip(lines.items(), (AFTER, LOST), strict=True):
            kept = extremes(line.values, NUM_BUCKETS)
            values = [line.values[i] for i in kept]
            marker = "o" if sum(map(math.isfinite, values)) == 1 else ""
            axes.plot([line.steps[i] for i in kept], values, color=colour, linewidth=1.6, marker=marker, label=label)
        axes.axhline(0, color=GRID, linewidth=0.8)  # both are read against 0
        mark_steps(axes)
        legend_above(axes)

    return svg(name, draw)


def legend_above(axes: Axes) -> None:
    """Over the drawing, where no line can lie under it."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 0.99), ncols=4, frameon=False, labelcolor=INK, borderaxespad=0, borderpad=0, handlelength=1.4
    )


def in_percent(*axes: Axis) -> None:
    """Writes the shares along an axis as whole per cents."""
    from matplotlib.ticker import PercentFormatter

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def mark_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("step")


def extremes(values: Sequence[float], num_buckets: int) -> list[int]:
    """Which of many values to draw so that no peak is lost: of each bucket the lowest, the highest and the first that is not a number."""
    if len(values) <= 2 * num_buckets:
        return list(range(len(values)))
    edges = [i * len(values) // num_buckets for i in range(num_buckets + 1)]
    kept: set[int] = set()
    for start, end in pairwise(edges):
        ranked = sorted((i for i in range(start, end) if math.isfinite(values[i])), key=values.__getitem__)
        lost = [i for i in range(start, end) if not math.isfinite(values[i])]
        kept.update(ranked[:1], ranked[-1:], lost[:1])
    return sorted(kept)


def shade(axes: Axes, healthy: Range, first_step: int, last_step: int) -> None:
    bottom, top = axes.get_ylim()
    low, high = max(healthy.low, bottom), min(healthy.high, top)
    start = max(healthy.from_step, first_step)
    if low < high and start < last_step:
        axes.fill_between([start, last_step], low, high, color=HEALTHY, alpha=0.12, linewidth=0, zorder=0)


def calibration(tables: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """How often the order that a reward model states came true (up) over the chance that it states, before and after, as SVG."""

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        for (label, points), colour in zip(tables.items(), (BEFORE, AFTER)[-len(tables) :], strict=True):
            stated, right = [x for x, _ in points], [y for _, y in points]
            axes.plot(stated, right, color=colour, linewidth=1.6, marker="o", markersize=4, label=label)
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(0, 1.03)
        in_percent(axes.xaxis, axes.yaxis)
        axes.set_xlabel("chance that it states")
        axes.legend(loc="lower right", frameon=False, labelcolor=INK)

    return svg("calibration", draw)


def by_stage(name: str, stages: Sequence[str], lines: Mapping[str, Sequence[Interval]], share: bool) -> str:
    """Figures after each stage of a pipeline, with their intervals, as SVG."""

    def draw(axes: Axes) -> None:
        for place, ((label, line), colour) in enumerate(zip(lines.items(), cycle((AFTER, BEFORE, LOST)), strict=False)):
            x = [stage + 0.07 * (place - (len(lines) - 1) / 2) for stage in range(len(stages))]  # beside each other, not over
            axes.vlines(x, [point.low for point in line], [point.high for point in line], color=colour, alpha=0.4, linewidth=3)
            axes.plot(x, [point.value for point in line], color=colour, linewidth=1.6, marker="o", markersize=4, label=label)
        axes.set_xticks(range(len(stages)), stages)
        axes.set_xlim(-0.4, len(stages) - 0.6)
        if share:
            axes.set_ylim(0, 1.03)
            in_percent(axes.yaxis)
        if len(lines) > 1:
            legend_above(axes)

    return svg(name, draw)


@dataclass(frozen=True)
class Bar:
    """One stage of `nested`: P(set), its interval and the words that tell it, for all sets but the last, from the inside out."""

    label: str
    shares: Sequence[Interval]
    captions: Sequence[str]


def nested(names: Sequence[str], bars: Sequence[Bar]) -> str:
    """Sets of strings within each other, a bar a stage, the innermost at the bottom and darkest; the last name is of the rest."""

    def draw(axes: Axes) -> None:
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_size_inches(max(6.4, 1.6 * len(bars)), 3.4)  # room for the words over each bar
        figure.subplots_adjust(left=0.08, right=0.97, top=0.74, bottom=0.1)
        axes.grid(False)  # it would show through the bars
        shades = [(AFTER, 1.0 - 0.62 * i / max(1, len(names) - 2)) for i in range(len(names) - 1)] + [(GRID, 1.0)]
        handles = []
        for rank, (name, (colour, alpha)) in enumerate(zip(names, shades, strict=True)):
            edges = [[0.0, *(share.value for share in bar.shares), 1.0][rank : rank + 2] for bar in bars]
            label = f"{name}, not {names[rank - 1]}" if 0 < rank < len(names) - 1 else name
            heights, bottoms = [top - bottom for bottom, top in edges], [bottom for bottom, _ in edges]
            handles.append(axes.bar(range(len(bars)), heights, 0.62, bottoms, color=colour, alpha=alpha, linewidth=0, label=label))
        for place, bar in enumerate(bars):
            for rank, share in enumerate(bar.shares):
                x = place - 0.31 + 0.62 * (rank + 1) / (len(bar.shares) + 1)
                for colour, width in ((GRID, 3.0), (INK, 1.2)) if share.low < share.high else ():  # cased, to be seen on any shade
                    axes.plot([x, x], [share.low, share.high], color=colour, linewidth=width, solid_capstyle="butt")
            axes.text(place, 1.03, "\n".join(reversed(bar.captions)), ha="center", va="bottom", color=INK, linespacing=1.35)
        axes.set_ylim(0, 1)
        axes.set_xticks(range(len(bars)), [bar.label for bar in bars])
        in_percent(axes.yaxis)
        above = (0.5, 1.04 + 0.08 * (len(names) - 1))  # over the words
        axes.legend(handles=handles[::-1], loc="lower center", bbox_to_anchor=above, ncols=len(names), frameon=False, labelcolor=INK)

    return svg("nested", draw)


def standalone(drawing: str) -> str:
    """What `nested` draws as a file of its own: with a font and the report's colours, light or dark as the reader has it."""
    colours = [";".join(f"{name}:{value}" for name, value in palette.items()) for palette in (LIGHT, DARK)]
    style = f"<style>svg{{{colours[0]};background:var(--card);font-family:system-ui,sans-serif}}"
    style += f"@media(prefers-color-scheme:dark){{svg{{{colours[1]}}}}}</style>"
    head, rest = drawing.split(">", 1)
    return f"{head}>{style}{rest}"


def without_style(drawing: str) -> str:
    """What `standalone` made, to stand in a page again and take its colours."""
    return re.sub(r"<style>.*?</style>", "", drawing, count=1, flags=re.DOTALL)


def svg(name: str, draw: Callable[[Axes], None]) -> str:
    """What `draw` draws, as an <svg> element without a size, a font and colours of its own. The same data give the same bytes."""
    return panels(name, 1, lambda every: draw(every[0]))


def panels(name: str, count: int, draw: Callable[[Sequence[Axes]], None]) -> str:
    """The same of `count` drawings side by side."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5}):
        figure = Figure(figsize=(SIZE_INCHES[0] * (1 if count == 1 else 0.8 * count), SIZE_INCHES[1]), dpi=72)
        FigureCanvasSVG(figure)
        every = [figure.add_subplot(1, count, place + 1) for place in range(count)]
        # the same for all, so that charts line up
        figure.subplots_adjust(left=0.12 / count**0.5, right=0.98, top=0.92 if count == 1 else 0.86, bottom=0.22, wspace=0.25)
        for axes in every:
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.spines["bottom"].set_color(GRID)
            axes.tick_params(colors=INK, length=0)
            for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
                label.set_color(INK)
            axes.grid(axis="y", color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.margins(x=0.02)
        draw(every)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return page_style(text.getvalue())


def page_style(drawing: str) -> str:
    """Takes out what would work against the page: prolog, metadata, style sheet, size, group ids, fonts, fixed colours."""
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing))
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", re.sub(r"font-family: [^;\"]*;? ?", "", drawing))
    for stand_in, variable in VARIABLES.items():
        drawing = drawing.replace(stand_in, f"var({variable})")
    return drawing
