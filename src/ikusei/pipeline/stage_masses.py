"""The section `lens` of a recipe of stages: after the last stage, the probability mass of sets of strings at each stage, as a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ikusei.pipeline.probability_mass import MassSettings, measure_masses, picture, read_task
from ikusei.recipe.reader import Document, RecipeError, build
from ikusei.recipe.stages import Stage
from ikusei.run.files import write_json, write_text


@dataclass(frozen=True)
class StageMasses:
    """The section `lens`: which sets are measured. Measured are the starting model (`untrained` where it is made from a configuration) and
    the model after each stage that trains a language model. Stages named in `text` are prompted in raw text, in `form`."""

    task: str
    sets: str | None = None
    form: str | None = None
    text: tuple[str, ...] = ()
    settings: MassSettings = field(default_factory=MassSettings)


def read_masses(document: Document, stages: Sequence[Stage]) -> StageMasses | None:
    """The section, if there is one. Raises RecipeError or ValueError where it is wrong."""
    if document.data.get("lens") is None:
        return None
    lines = {key[1:]: line for key, line in document.lines.items() if key[:1] == ("lens",)}
    overrides = {key[1:]: text for key, text in document.overrides.items() if key[:1] == ("lens",)}
    masses = build(StageMasses, Document(document.path, document.data["lens"], {(): 1, **lines}, overrides))
    unknown = set(masses.text) - {stage.name for stage in stages}
    if unknown:
        raise RecipeError(f"{document.path}:{lines.get((), 1)}: lens.text: no stage is called {', '.join(sorted(unknown))}")
    read_task(masses.task)
    return masses


def draw_masses(masses: StageMasses, raised: Sequence[Stage], places: Mapping[str, str], folder: Path) -> None:
    """Writes lens.svg and lens.json into the run's folder. `raised` are the stages that left a language model, in the folders `places`."""
    start = raised[0].recipe().model
    models = {start: start} if isinstance(start, str) else {"untrained": f"fresh:{places[raised[0].name]}"}
    models |= {stage.name: places[stage.name] for stage in raised}
    in_text = {*masses.text, "untrained"} if masses.text else set()  # the untrained one as the first stage after it
    models = {name: f"text:{model}" if name in in_text else model for name, model in models.items()}
    result = measure_masses(models, masses.task, masses.sets, masses.form, masses.settings)
    write_text(folder / "lens.svg", picture(result))
    write_json(folder / "lens.json", [asdict(row) for row in result.rows])
