"""Accuracy over tokens spent on an answer, one line for each test-time method, as a chart of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from ikusei.report.svg import INK, in_percent, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8b8fa3",
    "#9467bd",
    "#a6761d",
    "#e15759",
)  # on both
MARKS = "os^Dv<>Phd"


@dataclass(frozen=True, slots=True)
class Point:
    """A test-time method at one size: tokens written for a prompt, and the share of right answers with its interval over prompts."""

    method: str
    n: int
    tokens: float
    value: float
    low: float
    high: float
    frontier: bool = False


def draw(points: Sequence[Point], bound: Sequence[Point]) -> str:
    """The points by method, the frontier as a broad band under them, pass@n above and a single answer as a level line; as SVG."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    methods = list(dict.fromkeys(point.method for point in points if point.method != "one"))

    def chart(axes: Axes) -> None:
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_size_inches(8.0, 4.4)
        figure.subplots_adjust(left=0.08, right=0.76, top=0.96, bottom=0.13)
        axes.set_xscale("log", base=2)
        axes.plot([p.tokens for p in bound], [p.value for p in bound], color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="pass@n")
        axes.axhline(bound[0].value, color=INK, linewidth=0.8, linestyle=(0, (1, 3)), label="one answer")
        best = sorted((p.tokens, p.value) for p in points if p.frontier)
        axes.plot(*zip(*best, strict=True), color=INK, alpha=0.18, linewidth=7, solid_capstyle="round", label="frontier")
        for method, colour, mark in zip(methods, cycle(COLOURS), cycle(MARKS), strict=False):
            line = sorted((p for p in points if p.method == method), key=lambda p: p.n)
            x = [p.tokens for p in line]
            axes.vlines(x, [p.low for p in line], [p.high for p in line], color=colour, alpha=0.22, linewidth=1.6)
            axes.plot(x, [p.value for p in line], color=colour, linewidth=1.4, marker=mark, markersize=4, label=method.replace("_", " "))
        axes.set_ylim(0, 1.03)
        in_percent(axes.yaxis)
        axes.xaxis.set_major_locator(LogLocator(base=2))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("tokens written for an answer")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, labelcolor=INK)

    return svg("frontier", chart)
