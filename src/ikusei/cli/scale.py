"""The command `ikusei scale`: thin, as main.py is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # matplotlib
    from ikusei.report.frontier import Point

out = Console()


def scale(
    recipe: Path,
    *overrides: str,
    most: Annotated[int, Parameter(name="--max")] = 64,
    proxy: str | None = None,
    ways: str | None = None,
    step: str = "\\n",
    file: Annotated[Path | None, Parameter(name="--out")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print plain JSON.")] = False,
) -> int:
    """What more compute at answer time buys: accuracy over tokens, for each way to think, on a recipe's held-out prompts.

    Parameters
    ----------
    recipe
        Names task, judge and sampling; `model=runs/<run>` measures what a run has raised.
    most
        The most answers to choose among; 1, 2, 4, ... up to it are measured.
    proxy
        A reward model (a folder or a run) that guides; what the recipe names judges. Without one, and where the recipe does not tell gold
        from what it trains on, ways that need a guide are left out.
    ways
        With commas: vote, best_of_n, weighted_vote, mbr, rounds, revision, stretch, cut, beam, dvts (default: all that can be, but mbr).
    step
        What ends a step of beam and dvts (\\n: a new line).
    file
        Draw it into this SVG file.
    """
    from ikusei.evaluation import scaling
    from ikusei.run.files import must_have_a_place

    must_have_a_place(file)
    settings = scaling.ScaleSettings(most, tuple(ways.split(",")) if ways else (), step.replace("\\n", "\n"))
    found = scaling.measure(recipe, overrides, proxy, settings)
    if file is not None:
        file.write_text(scaling.picture(found), "utf-8")
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return 0
    show(found.points, found.bound)
    facts = found.facts
    out.print(f"{facts['num_prompts']} prompts · judge: {facts['judge']} · guide: {facts['guide'] or 'none'}", style="dim", highlight=False)
    if any(point.way in ("beam", "dvts") for point in found.points) and facts["with_steps"] < 0.5:
        out.print(f"{facts['with_steps']:.0%} of answers hold a step's end {step!r}: beam and dvts had little to choose; give --step")
    return 0


def show(points: Sequence[Point], bound: Sequence[Point]) -> None:
    """A row for each point, beside what no choice among n can do better than."""
    table = Table("", "n", "tokens", "right (95 % interval)", "pass@n", "frontier", box=None, padding=(0, 1))
    for column in (1, 2, 4):
        table.columns[column].justify = "right"
    for column in table.columns:
        column.no_wrap = True
    bounds = {point.n: f"{point.value:.3f}" for point in bound}
    for point in points:
        above = "" if point.way in ("cut", "stretch") else bounds.get(point.n, "")
        right = f"{point.value:.3f} ({point.low:.3f} to {point.high:.3f})"
        table.add_row(point.way, str(point.n), f"{point.tokens:,.0f}", right, above, "•" if point.frontier else "")
    out.print(table)
