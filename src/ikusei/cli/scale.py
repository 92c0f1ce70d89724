"""The command `ikusei scale`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from ikusei.cli.common import AsJson, out
from ikusei.models.first_import import loading
from ikusei.search.methods import help_text, registry

if TYPE_CHECKING:  # matplotlib
    from ikusei.report.frontier import Point

SLOW = ", ".join(spec.name for spec in registry().values() if spec.slow)
METHODS = f"With commas (default: all that can be run, but {SLOW}):\n{help_text(False)}\n\nThose that need a guide:\n{help_text(True)}"


def scale(
    recipe: Path,
    *overrides: str,
    most: Annotated[int, Parameter(name="--max")] = 64,
    proxy: str | None = None,
    methods: Annotated[str | None, Parameter(name=("--methods", "--ways"), help=METHODS)] = None,
    step: str = "\\n",
    file: Annotated[Path | None, Parameter(name="--out")] = None,
    as_json: AsJson = False,
) -> int:
    """What more compute at answer time buys: accuracy over tokens, for each test-time method, on a recipe's held-out prompts.

    Parameters
    ----------
    recipe
        Names task, judge and sampling; `model=runs/<run>` measures what a run has raised.
    most
        The most answers to choose among; 1, 2, 4, ... up to it are measured.
    proxy
        A reward model (a folder or a run) that guides; what the recipe names judges. Without one, and where the recipe does not tell gold
        from what it trains on, methods that need a guide are left out.
    step
        What ends a step of a search in steps, such as beam (\\n: a new line).
    file
        Draw it into this SVG file.
    """
    with loading():
        from ikusei.evaluation import scaling
    from ikusei.run.files import must_have_a_place

    must_have_a_place(file)
    settings = scaling.ScaleSettings(most, tuple(methods.split(",")) if methods else (), step.replace("\\n", "\n"))
    measured = scaling.measure(recipe, overrides, proxy, settings)
    if file is not None:
        file.write_text(scaling.picture(measured), "utf-8")
    if as_json:
        print(json.dumps(asdict(measured), ensure_ascii=False))
        return 0
    show(measured.points, measured.bound)
    facts = measured.facts
    out.print(f"{facts['num_prompts']} prompts · judge: {facts['judge']} · guide: {facts['guide'] or 'none'}", style="dim", highlight=False)
    stepped = [spec.name for spec in registry().values() if "steps" in spec.needs and any(p.method == spec.name for p in measured.points)]
    if stepped and facts["with_steps"] < 0.5:
        had = f"{' and '.join(stepped)} had little to choose"
        out.print(f"{facts['with_steps']:.0%} of answers hold a step's end {step!r}: {had}; give --step")
    return 0


def show(points: Sequence[Point], bound: Sequence[Point]) -> None:
    """A row for each point, beside what no choice among n can do better than."""
    from ikusei.intervals import Interval  # numpy

    table = Table("", "n", "tokens", "right (95 % interval)", "pass@n", "frontier", box=None, padding=(0, 1))
    for column in (1, 2, 4):
        table.columns[column].justify = "right"
    for column in table.columns:
        column.no_wrap = True
    bounds = {point.n: f"{point.value:.3f}" for point in bound}
    for point in points:
        spec = registry().get(point.method)  # none: a single answer
        above = "" if spec and spec.unit != "answers" else bounds.get(point.n, "")
        right = f"{Interval(point.value, point.low, point.high)}"
        table.add_row(point.method, str(point.n), f"{point.tokens:,.0f}", right, above, "•" if point.frontier else "")
    out.print(table)
