"""The workspace of one seed of a claim: a folder in which runs and measurements are made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ikusei.run.files import discard, plain, read_json, write_json
from ikusei.run.folder import checkpoints, status_of


@dataclass(frozen=True)
class Workspace:
    """Seed `seed` of a claim; everything is kept in `folder`."""

    folder: Path
    seed: int

    def train(self, name: str, recipe: Mapping[str, Any]) -> Path:
        """Runs a recipe under this seed, unless that was done before; resumes a run that was killed. Returns the run's folder, which
        keeps the trained model and no checkpoints.

        Raises:
            RuntimeError: it did not finish.
            ValueError: it was made by another recipe.
        """
        from ikusei.pipeline.train import resume, train  # transformers: seconds, and not every claim trains
        from ikusei.recipe.schema import document_of

        self.folder.mkdir(parents=True, exist_ok=True)
        run, document = self.folder / name, document_of({"name": name, "seed": self.seed, **plain(recipe)})
        if status_of(run) is None:
            discard(run)  # of a kill before it was a run
        elif (run / "recipe.source.yaml").read_text(encoding="utf-8") != document.text:
            raise ValueError(f"{run}: made by another recipe than the claim's now; remove {self.folder} to measure this seed anew")
        if status_of(run) == "finished":
            return run
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            console = Console(file=log, width=140)
            outcome = resume(run, console) if status_of(run) else train(document.data, folder=run, console=console)
        if outcome.problem is not None or outcome.summary["status"] != "finished":
            raise RuntimeError(f"{run} ended as {outcome.summary['status']}: {outcome.problem}; read {name}.log beside it")
        for each in (run, *(stage for stage in run.iterdir() if stage.is_dir())):
            for _, checkpoint in checkpoints(each):
                discard(checkpoint)
        return run

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, in JSON's types. The result is kept, so it is made only once."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, make())
        return read_json(file)
