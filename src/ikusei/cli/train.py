"""The commands around a run: `ikusei new`, `check`, `train` and `runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from ikusei.cli.common import AsJson, err, out
from ikusei.models.first_import import loading
from ikusei.rewards import BUILT_IN

Reward = Annotated[str | None, Parameter(help=f"my_reward.py:function, or one of {', '.join(BUILT_IN)}.")]


def train(
    recipe: Path | None = None,
    *overrides: str,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    resume: Path | None = None,
    folder: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Carry out a recipe: measure, train, measure again, report.

    Parameters
    ----------
    recipe
        A recipe file, or the name of one that comes with ikusei, for example quickstart.
    overrides
        key=value, for example train.lr=3e-5 model=runs/last/final.
    dry_run
        Check everything and train nothing: the same as `ikusei check`.
    resume
        Go on with this run folder instead; it needs no recipe.
    folder
        Where the run goes (default: a new folder in runs/).
    """
    if (recipe is None) == (resume is None):
        raise ValueError("train: give either a recipe or --resume RUN; for example `ikusei train quickstart`")
    if dry_run and resume is not None:
        raise ValueError("train: --dry-run checks a recipe, and --resume goes on with a run; give one of the two")
    if dry_run and recipe is not None:
        return check(recipe, *overrides, as_json=as_json)
    with loading():  # torch and transformers: seconds
        from ikusei.pipeline.outcome import tell
        from ikusei.pipeline.train import create, reopen, run

    console = err if as_json else out
    if recipe is not None:
        outcome = run(create(recipe, *overrides, folder=folder, console=console))
    else:
        assert resume is not None
        outcome = run(reopen(resume, console))
    if as_json:
        print(json.dumps({"folder": str(outcome.folder), **outcome.summary}))
    tell(outcome, console)
    return outcome.exit_code


def check(recipe: Path, *overrides: str, write: Path | None = None, as_json: AsJson = False) -> int:
    """Try a recipe without training: configuration, data, rewards on real rows, tokens coloured by mask, memory; and will it learn?

    With --write FOLDER, what the verdict recommends: the prompts that teach, its own right answers or pairs, and a recipe with them.
    """
    with loading():  # torch and transformers: seconds
        from ikusei.preflight.check import check_file, show

    found = check_file(recipe, overrides, write)
    if as_json:
        print(json.dumps(found.plain()))
    else:
        show(found, out)
    return 0 if found.ready else 2


def runs(root: Path = Path("runs"), *, as_json: AsJson = False) -> int:
    """List the runs of a folder: how far each is and what it gained."""
    from ikusei.run.folder import list_runs

    found = list_runs(root)
    if as_json:
        print(json.dumps([{"path": str(r.path), "status": r.status, "created": r.created, "step": r.step} for r in found]))
        return 0
    if not found:
        out.print(f"no runs in {root}; `ikusei train quickstart` makes one")
        return 0
    table = Table("run", "status", "step", "pass@1", box=None, padding=(0, 2))
    for run in found:
        table.add_row(str(run.path), run.status, str(run.step), _gain(run.summary))
    out.print(table)
    return 0


def new(recipe: Path, *, data: Path, reward: Reward = None, model: str = "seedling") -> int:
    """Write a commented recipe for your own data.

    Parameters
    ----------
    recipe
        The file to write; it must not exist.
    data
        jsonl, json, csv or parquet with a column `prompt` (or `text`, `messages`, `prompt` and `completion` to learn from).
    model
        What to raise: a folder, a hub id or seedling.
    """
    from ikusei.recipe.template import write_recipe

    for line in write_recipe(recipe, data, reward, model):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _gain(summary: dict[str, Any] | None) -> str:
    measured = [table["pass@1"]["value"] for table in (summary or {}).get("eval", {}).values() if "pass@1" in table]
    return " → ".join(f"{value:.2f}" for value in measured)
