"""The command `ikusei lens`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from ikusei.cli.common import AsJson, out
from ikusei.models.first_import import loading


def lens_(
    *models: str,
    task: str,
    sets: str | None = None,
    prompts: int = 64,
    samples: int = 32,
    form: str | None = None,
    file: Annotated[Path | None, Parameter(name="--out")] = None,
    as_json: AsJson = False,
) -> int:
    """How much probability models give to sets of strings, such as natural and desirable answers, a stage each.

    Parameters
    ----------
    models
        A stage each, as NAME=MODEL or MODEL. Before MODEL, `text:` asks in raw text a model that knows no conversations, and `fresh:` takes
        its configuration with random weights: untrained=text:fresh:seedling
    task
        Whose held-out prompts are asked: cat_lover, or package.module:Class.
    sets
        module:function or my_file.py:function, from a text to the innermost set that holds it (default: the task's own).
    form
        What `text:` asks, with {prompt} for the question and \\n for a new line (default: Q{prompt}\\nA).
    file
        Draw the stages into this SVG file.
    """
    from ikusei.intervals import Interval  # numpy

    with loading():  # torch and transformers: seconds
        from ikusei.pipeline import probability_mass

    masses = probability_mass.measure_masses(
        probability_mass.named(models), task, sets, form, probability_mass.MassSettings(num_prompts=prompts, num_samples=samples)
    )
    if file is not None:
        file.write_text(probability_mass.picture(masses), "utf-8")
    if as_json:
        print(json.dumps([asdict(row) for row in masses.rows], ensure_ascii=False))
        return 0
    table = Table("stage", "set", "P by samples (95 % interval)", "log10 P by members (± error)", box=None, padding=(0, 2))
    for row in masses.rows:
        listed = "" if row.log10_mass is None else f"{row.log10_mass:.2f} ± {row.log10_error:.2f}"
        table.add_row(row.stage, row.set, f"{Interval(row.share, row.low, row.high)}", listed)
    out.print(table)
    return 0
