"""The run of one stage: an existing one is opened, else a new one is created. A recipe without stages is a pipeline of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from ikusei.pipeline.collection_run import CollectionRun
from ikusei.pipeline.outcome import Ending
from ikusei.pipeline.training_run import TrainingRun
from ikusei.recipe.build import build, with_probed_facts
from ikusei.recipe.schema import Recipe, read_recipe, resolved
from ikusei.run.folder import Run


class Job(Protocol):
    """A stage's run, opened or created."""

    run: Run

    def go(self) -> str:
        """Carries it out from where it stands; returns the status that it ends with."""
        ...

    def summary(self, status: str) -> dict[str, Any]: ...


def open_or_create(recipe: Recipe | None, source: str, folder: Path | None, console: Console) -> Job:
    """Without a recipe, the existing run in `folder`, with the thread count and layout that were probed at its start. With a recipe, a new
    run of it; `source` is its text. Raises ValueError where the run or the recipe is not right."""
    if recipe is None:
        assert folder is not None, "either a recipe or a folder"
        there = Run.open(folder)
        recipe = with_probed_facts(read_recipe(there.path / "recipe.yaml"), there.facts)
        components = build(recipe)
    else:
        components = build(recipe)
        if components.rewards:
            with components.workers():  # a reward that cannot be used is told before there is a run
                pass
        there = Run.create(Path("runs"), recipe.name, source, resolved(recipe), components.policy.facts, folder)
    kind = TrainingRun if recipe.collect is None else CollectionRun
    return kind(recipe, components, there, console)


@dataclass(frozen=True)
class Single:
    """A pipeline of one stage, whose run is the pipeline's."""

    job: Job

    @property
    def path(self) -> Path:
        return self.job.run.path

    def recorded(self) -> AbstractContextManager[Ending]:
        return nullcontext(Ending())

    def jobs(self) -> Iterator[Job]:
        yield self.job
