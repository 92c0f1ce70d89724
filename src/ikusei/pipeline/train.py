"""The runner. A recipe is a pipeline of one stage or of many; each stage is a run, resumed where it exists, else created.

    model: seedling                           # where the pipeline begins
    seed: 0                                   # other sections at the top are those of every stage that does not say otherwise
    task: cat_lover
    stages:
      - {name: sft, task: {name: files, path: answers.jsonl}, algorithm: lm, train: {steps: 50}}
      - {name: rankings, collect: {num_prompts: 512}}
      - {name: reward, task: {name: files, path: "stage:rankings"}, algorithm: bradley_terry}
      - {name: ppo, rewards: [{path: learned, settings: {model: "stage:reward"}}], algorithm: ppo}
    lens: {task: cat_lover}                   # at the end, the probability mass of sets by stage (stage_masses.py)

`stage:NAME` is what an earlier stage left: the model that it raised, or the rows that it collected. A stage that names no model starts from
the last language model before it. An override `NAME.key=value` is for one stage, `key=value` for every stage that has such a section.

    runs/20261122-101500-instructgpt/
      run.json  recipe.source.yaml  recipe.yaml (the stages, resolved)
      1-sft/  2-rankings/  3-reward/  4-ppo/      a run folder each
      final/ (the last language model)  summary.json  report.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

from rich.console import Console

from ikusei.pipeline.job import Job, Single, open_or_create
from ikusei.pipeline.outcome import Ending, Outcome, recorded
from ikusei.pipeline.staged import Staged
from ikusei.recipe.reader import plain
from ikusei.recipe.schema import Source, document_of, read_document
from ikusei.recipe.stages import has_stages
from ikusei.report.run import write_report
from ikusei.run.files import read_record
from ikusei.run.folder import status_of


class Pipeline(Protocol):
    """Stages to run, in order."""

    @property
    def path(self) -> Path:
        """The folder of the run, or of the run that holds the stages'."""
        ...

    def recorded(self) -> AbstractContextManager[Ending]:
        """A context around all stages that records how they ended, whatever happens."""
        ...

    def jobs(self) -> Iterator[Job]:
        """The unfinished stages, each opened or created when its turn comes. After the last one the final model is written."""
        ...


def run(pipeline: Pipeline) -> Outcome:
    """Run the unfinished stages of a pipeline. The first stage that does not finish ends it."""
    with pipeline.recorded() as whole:
        for job in pipeline.jobs():
            with recorded(job.run, job.summary, write_report) as stage:
                stage.status = job.go()
            whole.status, whole.problem = stage.status, stage.problem
            if stage.status != "finished":
                break
    return Outcome(pipeline.path, read_record(pipeline.path / "summary.json"), whole.problem)


class Sections(TypedDict, total=False):
    """A recipe's sections, as keywords of `train`. A mapping changes the keys that it names, and with a `name` the whole section."""

    name: str
    seed: int
    model: str | Mapping[str, Any]
    policy: Mapping[str, Any]
    task: str | Mapping[str, Any]
    eval_task: str | Mapping[str, Any]
    replay_task: str | Mapping[str, Any]
    rewards: list[str | Mapping[str, Any]]
    algorithm: str | Mapping[str, Any]
    sampling: Mapping[str, Any]
    train: Mapping[str, Any]
    collect: Mapping[str, Any]
    eval: Mapping[str, Any]
    watch: Mapping[str, Any]


def train(
    recipe: Source, *overrides: str, folder: Path | None = None, console: Console | None = None, **sections: Unpack[Sections]
) -> Outcome:
    """Run a recipe: evaluate, train, evaluate again, write the report.

        ikusei.train("quickstart", train={"steps": 50}, seed=1)
        ikusei.train("my.yaml", "train.steps=50")                    the same, as on the command line
        ikusei.train({"model": "seedling", "task": "arithmetic", "algorithm": "grpo"})

    `recipe` is a file, the name of one that comes with ikusei, a mapping of sections, or a `Recipe`. The run goes to `folder`, by default a
    new one in runs/. Raises RecipeError or ValueError, before anything is written, where the input is not right.
    """
    return run(create(recipe, *overrides, *as_overrides(sections), folder=folder, console=console))


def resume(folder: str | Path, console: Console | None = None) -> Outcome:
    """Resume a run from its last checkpoint, bit-equal to one that was never stopped. Raises ValueError where there is no run."""
    return run(reopen(folder, console))


def create(recipe: Source, *overrides: str, folder: Path | None = None, console: Console | None = None) -> Pipeline:
    """A new run of a recipe, not started yet. Arguments and errors are those of `train`."""
    document, console = document_of(recipe), console or Console()
    source = document.text + "".join(f"# override: {override}\n" for override in overrides)
    if "stages" in document.data:
        return Staged.create(document, overrides, source, folder, console)
    return Single(open_or_create(read_document(document, overrides), source, folder, console))


def as_overrides(sections: Mapping[str, Any]) -> list[str]:
    """`train={"steps": 50}` as `train.steps=50`. Raises ValueError for what no recipe can say."""
    try:
        written = {name: plain(given) for name, given in sections.items()}
        merged = {name: isinstance(given, dict) and "name" not in given for name, given in written.items()}
        pairs = [
            (f"{name}.{key}" if merged[name] else name, value)
            for name, given in written.items()
            for key, value in (given.items() if merged[name] else [("", given)])
        ]
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in pairs]
    except TypeError as error:
        raise ValueError(
            f"got {', '.join(sections)}: {error}; allowed: numbers, texts, booleans, None, and lists and mappings of them"
        ) from error


def reopen(folder: str | Path, console: Console | None = None) -> Pipeline:
    """An existing run, not resumed yet. Raises ValueError where there is none or it has finished."""
    path, console = Path(folder), console or Console()
    status_of(path)  # refuses a newer format before its recipe is read
    if has_stages(path / "recipe.yaml"):
        return Staged.open(path, console)
    return Single(open_or_create(None, "", path, console))
