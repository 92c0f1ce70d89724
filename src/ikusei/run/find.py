"""Find the model that a name means: a run stands for the model that it trained."""

from __future__ import annotations

from pathlib import Path

from ikusei.run.folder import checkpoints, list_runs, status_of


def find_model(name: str | None, root: Path = Path("runs")) -> str:
    """The folder or name of a model: of a run its final model, else its newest checkpoint; of None the newest run with a final model,
    else `seedling`. Raises ValueError for a run that has neither, or that a newer version has written."""
    if name is None:
        raised = [run.path for run in list_runs(root) if (run.path / "final").is_dir()]
        return find_model(str(raised[-1])) if raised else "seedling"
    folder = Path(name)
    if status_of(folder) is not None:
        saved = [path for _, path in checkpoints(folder)]
        if not (folder / "final").is_dir() and not saved:
            raise ValueError(f"{name}: this run has raised nothing yet: it has no final/ and no checkpoint; go on with --resume {name}")
        return str(folder / "final" if (folder / "final").is_dir() else saved[-1])
    return name
