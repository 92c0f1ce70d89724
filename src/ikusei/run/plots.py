"""The report's charts: drawn by matplotlib, given out as SVG to stand inside the page and to take its colours and its font.

Colours are written as stand-ins (#00000n) and exchanged for the page's CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ikusei.run.health import Range
from ikusei.run.statistics import Interval

INK, GRID, BEFORE, AFTER, HEALTHY, LOST = "#000001", "#000002", "#000003", "#000004", "#000005", "#000006"
VARIABLES = {INK: "--faint", GRID: "--grid", BEFORE: "--before", AFTER: "--after", HEALTHY: "--healthy", LOST: "--bad"}
SIZE_INCHES = (4.8, 2.4)
NUM_BUCKETS = 400  # more than a chart has pixels to tell apart


@dataclass(frozen=True)
class Line:
    """One metric by step; NaN where it was not a number, which is drawn as a gap and a mark."""

    steps: Sequence[int]
    values: Sequence[float]
    spread: Sequence[float] | None = None  # half the height of a band around the line
    share: bool = False  # between 0 and 1, read in per cent


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
        low, high = min(filter(math.isfinite, [*bottoms, 0.0])), max(filter(math.isfinite, [*tops, 0.0]))
        axes.set_ylim(low, high + 0.08 * (high - low) if high > low else low + 1.0)
        lost = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
        axes.plot(lost, [0.04] * len(lost), "x", color=LOST, transform=axes.get_xaxis_transform(), clip_on=False)
        if healthy is not None:
            shade(axes, healthy, line.steps[0], line.steps[-1])
        if line.share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("step")

    return svg(name, draw)


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


def pass_at_k(tables: Mapping[str, Mapping[int, Interval]]) -> str:
    """pass@k over k (doubling) of each table ("before", "after"), its intervals as a band, as SVG."""

    def draw(axes: Axes) -> None:
        for (label, table), colour in zip(tables.items(), (BEFORE, AFTER), strict=True):
            ks = sorted(table)
            axes.fill_between(ks, [table[k].low for k in ks], [table[k].high for k in ks], color=colour, alpha=0.16, linewidth=0)
            axes.plot(ks, [table[k].value for k in ks], color=colour, linewidth=1.6, marker="o", markersize=3.5, label=label)
        axes.set_xscale("log", base=2)
        ks = sorted({k for table in tables.values() for k in table})
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("tries k")
        axes.legend(loc="lower right", frameon=False, labelcolor=INK)

    return svg("pass_at_k", draw)


def svg(name: str, draw: Callable[[Axes], None]) -> str:
    """What `draw` draws, as an <svg> element without a size, a font and colours of its own. The same data give the same bytes."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5}):
        figure = Figure(figsize=SIZE_INCHES, dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        figure.subplots_adjust(left=0.12, right=0.98, top=0.92, bottom=0.22)  # the same for all, so that charts line up
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        axes.tick_params(colors=INK, length=0)
        axes.xaxis.label.set_color(INK)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        draw(axes)
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
