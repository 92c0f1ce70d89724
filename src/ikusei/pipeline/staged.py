"""A pipeline of several stages: a run folder that holds the stages' run folders, with one report for all.

Before the first stage begins, every stage's recipe is read, and the data, rewards and models that it names are checked.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ikusei.pipeline.job import Job, open_or_create
from ikusei.pipeline.outcome import Ending, recorded
from ikusei.pipeline.stage_masses import StageMasses, draw_masses, read_masses
from ikusei.recipe.reader import Document, parse, plain
from ikusei.recipe.schema import resolved
from ikusei.recipe.stage_checks import check_stage
from ikusei.recipe.stages import Stage, read_stages, shared
from ikusei.report.pipeline import write_overview
from ikusei.run.files import discard, read_record
from ikusei.run.folder import Run, status_of


@dataclass(frozen=True)
class Staged:
    """A pipeline of several stages (see `pipeline.train.Pipeline`)."""

    stages: tuple[Stage, ...]
    masses: StageMasses | None
    run: Run
    console: Console

    @classmethod
    def create(cls, document: Document, overrides: Sequence[str], source: str, folder: Path | None, console: Console) -> Staged:
        """A new run. Raises RecipeError or ValueError, before anything is written, where a stage is wrong."""
        stages = read_stages(document, overrides)
        for stage in stages:
            check_stage(stage, stages)
        masses = read_masses(shared(document, overrides), stages)
        whole = {"stages": [resolved(stage.recipe()) for stage in stages]} | ({} if masses is None else {"lens": plain(masses)})
        return cls(tuple(stages), masses, Run.create(Path("runs"), document.path.stem, source, whole, {}, folder), console)

    @classmethod
    def open(cls, folder: Path, console: Console) -> Staged:
        """A run to resume. Raises ValueError where there is none, or it has finished."""
        document = parse(folder / "recipe.yaml")
        stages = read_stages(document)
        return cls(tuple(stages), read_masses(document, stages), Run.open(folder), console)

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def places(self) -> dict[str, str]:
        """The path of what each stage leaves, by the name of the stage."""
        return {stage.name: str((self.path / stage.output).resolve()) for stage in self.stages}

    def recorded(self) -> AbstractContextManager[Ending]:
        return recorded(self.run, self.summary, lambda folder: write_overview(folder, [stage.folder for stage in self.stages]))

    def jobs(self) -> Iterator[Job]:
        """The stages that are left, each opened or created in its turn. Raises ValueError, naming the stage, where one is wrong."""
        for stage in self.stages:
            if status_of(self.path / stage.folder) == "finished":
                continue
            self.console.print(f"stage {stage.number} of {len(self.stages)}: {stage.name}", style="bold", highlight=False)
            try:
                job = self._job(stage)
            except ValueError as error:
                raise ValueError(f"stage {stage.name}: {error}") from error
            yield job
        self._arrive()

    def _arrive(self) -> None:
        """Write what the pipeline leaves: the last language model, and the probability masses by stage if the recipe asks for them."""
        raised = [stage for stage in self.stages if stage.leaves == "a language model"]
        if not raised:
            return
        self.run.save_final(lambda folder: copy_folder(Path(self.places[raised[-1].name]), folder))
        if self.masses is not None:
            self.console.print("measuring the mass of sets, stage by stage", highlight=False)
            draw_masses(self.masses, raised, self.places, self.path)

    def summary(self, status: str) -> dict[str, Any]:
        """The first evaluation before and the last one after that have sampled answers, and the sums of the stages' counters."""
        ended = [self.path / stage.folder / "summary.json" for stage in self.stages]
        return summary_of([read_record(file) for file in ended if file.is_file()], status)

    def _job(self, stage: Stage) -> Job:
        folder = self.path / stage.folder
        if status_of(self.path / stage.folder):
            return open_or_create(None, "", folder, self.console)
        discard(folder)  # of a kill before it was a run
        source = (self.path / "recipe.source.yaml").read_text(encoding="utf-8")
        return open_or_create(stage.recipe(self.places), source, folder, self.console)


def copy_folder(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copy2(file, target / file.name)


def summary_of(done: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    """From the summaries of stages that have ended, in order."""
    before = next((each["eval"]["before"] for each in done if "reward" in each["eval"].get("before", {})), None)
    after = next((each["eval"]["after"] for each in reversed(done) if "reward" in each["eval"].get("after", {})), None)
    found = {name: measured for name, measured in (("before", before), ("after", after)) if measured}
    counted = {name: sum(each[name] for each in done) for name in ("steps", "tokens_sampled", "tokens_trained")}
    return {"status": status, "eval": found, **counted}
