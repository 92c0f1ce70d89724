"""The commands `ikusei eval` and `ikusei compare`: thin, as cli.py is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

out = Console()

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print plain JSON.")]
Page = Annotated[Path | None, Parameter(name="--out", help="Write the figures and their charts into this HTML file too.")]


def evaluate(recipe: Path, *overrides: str, page: Page = None, as_json: AsJson = False) -> int:
    """Measure the recipe's model on its held-out prompts; `model=runs/<run>` measures what a run has raised."""
    from ikusei import check, outcome  # torch

    results = check.measure(recipe, overrides, page)
    if as_json:
        print(json.dumps(results))
        return 0
    table = Table("", "value (95 % interval)", box=None, padding=(0, 2))
    for name, value in results.items():
        number = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(name, outcome.figure(value) if isinstance(value, dict) else number)
    out.print(table)
    return 0


def compare(
    *models: str,
    page: Page = None,
    as_json: AsJson = False,
) -> int:
    """What one model gains over another on the same held-out prompts: differences paired by prompt, with 95 % intervals.

    Parameters
    ----------
    models
        Two of them, each a run folder, several with commas between (seeds of one recipe, read as one), with `:before` for the model that a
        run began with. One run alone is compared with what it began with.
    """
    from ikusei.run import comparison  # numpy

    if len(models) not in (1, 2):
        raise ValueError(f"compare: got {len(models)} models; allowed: two, or one run; for example ikusei compare runs/a runs/b")
    one, other = models[0], models[1] if len(models) == 2 else f"{models[0]}:before"
    first, second = (comparison.read_experiment(name, *places(name)) for name in (one, other))
    found = comparison.compare(first, second)
    if page is not None:
        from ikusei.run.evaluated import write_comparison  # matplotlib

        write_comparison(found, first, second, page)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return 0
    table = Table("", f"{one} less {other} (95 % interval)", box=None, padding=(0, 2))
    for k, gain in found.gains.items():
        table.add_row(f"pass@{k}", f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    table.add_row("length, tokens", f"{found.length.value:+.1f} ({found.length.low:+.1f} to {found.length.high:+.1f})")
    out.print(table)
    told = f"solved by both {found.both}, by neither {found.neither}, only by the first {len(found.only_one)}, only by the second "
    out.print(told + str(len(found.only_other)), highlight=False)
    for name, prompts in (("first", found.only_one), ("second", found.only_other)):
        for prompt in prompts[:3]:
            out.print(f"  only the {name}: {prompt[-100:]}", markup=False, highlight=False)
    if found.crossing is not None:
        out.print(f"the curves meet at k = {found.crossing:.1f}: with more tries than that the second reaches as far", highlight=False)
    return 0


def places(name: str) -> tuple[list[Path], str]:
    """The run folders of a model's name, and which of their measurements it means."""
    before = name.endswith(":before")
    return [Path(each) for each in name.removesuffix(":before").split(",")], "before" if before else "after"
