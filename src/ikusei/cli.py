"""The command line: thin. Each command reads its words, calls one function, prints what it returns.

Exit codes: 0 done, 1 the run failed, 2 the input is not right, 130 interrupted. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.table import Table

app = App(name="ikusei", help="Raise a language model, from raw text to a model people want to use.", version="0.1.0")
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
    from ikusei import journey  # torch and transformers: seconds

    console = err if as_json else out
    if resume is not None:
        outcome = journey.resume(resume, console)
    else:
        assert recipe is not None
        outcome = journey.train(recipe, *overrides, folder=folder, console=console)
    if as_json:
        print(json.dumps({"folder": str(outcome.folder), **outcome.summary}))
    journey.tell(outcome, console)
    return outcome.exit_code


@app.command
def check(recipe: Path, *overrides: str, as_json: AsJson = False) -> int:
    """Try a recipe without training: configuration, data, rewards on real rows, tokens coloured by mask, memory."""
    from ikusei import check as checking
    from ikusei.recipe import read_recipe

    found = checking.check(read_recipe(recipe, overrides))
    if as_json:
        print(json.dumps(found.plain()))
    else:
        checking.show(found, out)
    return 0 if found.ready else 2


@app.command
def eval(recipe: Path, *overrides: str, as_json: AsJson = False) -> int:
    """Measure the recipe's model on its held-out prompts; `model=runs/<run>` measures what a run has raised."""
    from ikusei import check as checking
    from ikusei import journey

    results = checking.measure(recipe, overrides)
    if as_json:
        print(json.dumps(results))
        return 0
    table = Table("", "value (95 % interval)", box=None, padding=(0, 2))
    for name, value in results.items():
        number = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(name, journey.figure(value) if isinstance(value, dict) else number)
    out.print(table)
    return 0


@app.command
def sample(
    prompt: str,
    *,
    model: str | None = None,
    num: int = 4,
    temperature: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
    as_json: AsJson = False,
) -> int:
    """Write `num` answers to a prompt. `model` is a folder, a run, a hub id or seedling (default: the newest run)."""
    from ikusei import talk
    from ikusei.types import Sampling

    responses = talk.answers(talk.find_model(model), prompt, num, Sampling(temperature, max_tokens=max_tokens), seed)
    if as_json:
        print(json.dumps([{"text": r.text, "stop": r.stop, "logprob": sum(r.logprobs or ())} for r in responses], ensure_ascii=False))
        return 0
    for response in responses:
        out.print(response.text, markup=False, highlight=False)
    return 0


@app.command
def chat(
    model: str | None = None,
    *,
    turns: Annotated[bool, Parameter(negative=())] = False,
    temperature: float = 0.7,
    max_tokens: int = 512,
) -> int:
    """Talk with a model: a folder, a run, a hub id or seedling (default: the newest run). With --turns it remembers what was said."""
    from ikusei import talk
    from ikusei.types import Sampling

    talk.chat(talk.find_model(model), Sampling(temperature, max_tokens=max_tokens), turns, out)
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
        my_reward.py:function, or one of exact, math, think_format, length.
    model
        What to raise: a folder, a hub id or seedling.
    """
    from ikusei.new import write_recipe

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
