"""The plots of the performance page: speed against TRL, where the time of a step goes, and scaling curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

OURS, THEIRS, MARK = "#2a7f62", "#b0b0b0", "#c0392b"
COLOURS = {"sample": "#4c72b0", "reward": "#dd8452", "train": "#55a868", "other": "#cccccc"}
Record = dict[str, Any]


def speeds(rows: Record, file: Path) -> None:
    """How many times faster, with the quartiles, and what was to be reached."""
    names = sorted(rows, reverse=True)
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(names) + 1.2))
    for y, name in enumerate(names):
        speed, record = rows[name]["speed"], rows[name]
        axes.barh(y, speed["median"], color=OURS, height=0.55)
        axes.plot([speed["low"], speed["high"]], [y, y], color="black", linewidth=1.2)
        for value, style in ((record["at_least"], "-"), (record["aim"], ":")):
            axes.plot([value, value], [y - 0.38, y + 0.38], color=MARK, linestyle=style, linewidth=1.6)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("times faster than TRL (W5: than without skipping); line: at least, dots: aim")
    _save(figure, file)


def times(rows: Record, file: Path) -> None:
    """Shares of a step, TRL's bar above ours; a bar's length is its part of TRL's time."""
    names = sorted((name for name in rows if "sample" in rows[name]["ours"]), reverse=True)
    figure, axes = plt.subplots(figsize=(7, 0.7 * len(names) + 1.2))
    for y, name in enumerate(names):
        whole = rows[name]["theirs"]["seconds"]
        for side, above in (("theirs", 0.2), ("ours", -0.2)):
            left = 0.0
            for seconds, colour in zip(parts(rows[name][side]), COLOURS.values(), strict=True):
                axes.barh(y + above, seconds / whole, left=left, color=colour, height=0.34)
                left += seconds / whole
    for name, colour in COLOURS.items():
        axes.barh(0, 0, color=colour, label=name)
    axes.set_yticks(range(len(names)), [f"{name}  TRL\nours" for name in names])
    axes.set_xlabel("time of a step, TRL's is 1")
    axes.legend(ncols=len(COLOURS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    _save(figure, file)


def parts(side: Record) -> list[float]:
    """Seconds of a step: sample, reward, train, other."""
    known = [side[name] for name in ("sample", "reward", "train")]
    return [*known, max(0.0, side["seconds"] - sum(known))]


def scaling(curves: list[Record], file: Path) -> None:
    """Seconds against what grows, both on logarithmic axes."""
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(3.2 * columns, 2.6 * lines), squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        axes.loglog(curve["x"], curve["seconds"], "o-", color=OURS, base=2)
        axes.set_title(f"{curve['name']}: power {curve['exponent']:.2f}", fontsize=9)
        axes.set_ylabel("seconds", fontsize=8)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
