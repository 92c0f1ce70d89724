"""The command line: thin. Each command reads its words, calls one function, prints what it returns.

Exit codes: 0 done, 1 the run failed, 2 the input is not right, 3 paused by the watch, 130 interrupted.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.table import Table

from ikusei.cli.chat import chat, sample, score
from ikusei.cli.evaluate import compare, evaluate
from ikusei.cli.reproduce import reproduce
from ikusei.cli.reward import reward as reward_app
from ikusei.cli.scale import scale

app = App(name="ikusei", help="Raise a language model, from raw text to a model people want to use.", version="0.1.0")
app.command(reward_app)
for command in (compare, sample, chat, score, scale, reproduce):
    app.command(command)
app.command(evaluate, name="eval")
out, err = Console(), Console(stderr=True)

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print plain JSON to the standard output.")]


@app.command
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
        A recipe file, for example recipes/quickstart.yaml.
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
        raise ValueError("train: give either a recipe or --resume RUN; for example `ikusei train recipes/quickstart.yaml`")
    if dry_run and resume is not None:
        raise ValueError("train: --dry-run checks a recipe, and --resume goes on with a run; give one of the two")
    if dry_run and recipe is not None:
        return check(recipe, *overrides, as_json=as_json)
    from ikusei.pipeline import outcome as telling
    from ikusei.pipeline import train as road  # torch and transformers: seconds

    console = err if as_json else out
    if resume is not None:
        outcome = road.resume(resume, console)
    else:
        assert recipe is not None
        outcome = road.train(recipe, *overrides, folder=folder, console=console)
    if as_json:
        print(json.dumps({"folder": str(outcome.folder), **outcome.summary}))
    telling.tell(outcome, console)
    return outcome.exit_code


@app.command
def check(recipe: Path, *overrides: str, write: Path | None = None, as_json: AsJson = False) -> int:
    """Try a recipe without training: configuration, data, rewards on real rows, tokens coloured by mask, memory; and will it learn?

    With --write FOLDER, what the verdict recommends: the prompts that teach, its own right answers or pairs, and a recipe with them.
    """
    from ikusei.preflight import check as checking

    found = checking.check_file(recipe, overrides, write)
    if as_json:
        print(json.dumps(found.plain()))
    else:
        checking.show(found, out)
    return 0 if found.ready else 2


@app.command(name="lens")
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
    from ikusei.pipeline import probability_mass as lens

    found = lens.measure(lens.named(models), task, sets, form, lens.LensSettings(num_prompts=prompts, num_samples=samples))
    if file is not None:
        file.write_text(lens.picture(found), "utf-8")
    if as_json:
        print(json.dumps([asdict(row) for row in found.rows], ensure_ascii=False))
        return 0
    table = Table("stage", "set", "P by samples (95 % interval)", "log10 P by members (± error)", box=None, padding=(0, 2))
    for row in found.rows:
        listed = "" if row.log10_mass is None else f"{row.log10_mass:.2f} ± {row.log10_error:.2f}"
        table.add_row(row.stage, row.set, f"{row.share:.3f} ({row.low:.3f} to {row.high:.3f})", listed)
    out.print(table)
    return 0


@app.command
def runs(root: Path = Path("runs"), *, as_json: AsJson = False) -> int:
    """List the runs of a folder: how far each is and what it gained."""
    from ikusei.run.folder import list_runs

    found = list_runs(root)
    if as_json:
        print(json.dumps([{"path": str(r.path), "status": r.status, "created": r.created, "step": r.step} for r in found]))
        return 0
    if not found:
        out.print(f"no runs in {root}; `ikusei train recipes/quickstart.yaml` makes one")
        return 0
    table = Table("run", "status", "step", "pass@1", box=None, padding=(0, 2))
    for run in found:
        table.add_row(str(run.path), run.status, str(run.step), _gain(run.summary))
    out.print(table)
    return 0


@app.command
def new(recipe: Path, *, data: Path, reward: str | None = None, model: str = "seedling") -> int:
    """Write a commented recipe for your own data.

    Parameters
    ----------
    recipe
        The file to write; it must not exist.
    data
        jsonl, json, csv or parquet with a column `prompt` (or `text`, `messages`, `prompt` and `completion` to learn from).
    reward
        my_reward.py:function, or one of exact, math, think_format, length, votes, code.
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


def main(words: list[str] | None = None) -> None:
    """The program `ikusei`."""
    try:
        code = app(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:  # already explained by cyclopts
        code = 2
    except ValueError as error:
        err.print("[bold red]error:[/] ", end="")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)
