"""A recipe of stages, carried out in order in one run: each stage is a run of its own in the folder, and there is one report for all.

    model: seedling                           # where the road begins
    seed: 0                                   # other sections at the top are those of every stage that does not say otherwise
    task: cat_lover
    stages:
      - {name: sft, task: {name: files, path: answers.jsonl}, algorithm: lm, train: {steps: 50}}
      - {name: rankings, collect: {num_prompts: 512}}
      - {name: reward, task: {name: files, path: "stage:rankings"}, algorithm: bradley_terry}
      - {name: ppo, rewards: [{path: learned, settings: {model: "stage:reward"}}], algorithm: ppo}

    lens: {task: cat_lover}                   # at the end, the probability mass of sets by stage, as a chart (lens.py)

`stage:NAME` is what an earlier stage left: the model that it raised, or the rows that it collected. A stage that names no model starts from
the last language model before it. An override `NAME.key=value` is for one stage, `key=value` for every stage that has such a section.

    runs/20261122-101500-instructgpt/
      run.json  recipe.source.yaml  recipe.yaml (the stages, resolved)
      1-sft/  2-rankings/  3-reward/  4-ppo/      a run folder each
      final/ (the last language model)  summary.json  report.html

Every stage's recipe is read, its data and rewards are tried, and the models that it names are looked for before the first stage begins.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ikusei.pipeline import probability_mass as lens
from ikusei.pipeline import training_run as journey
from ikusei.pipeline.outcome import Outcome
from ikusei.pipeline.probability_mass import LensSettings
from ikusei.recipe.reader import Document, RecipeError, build, plain
from ikusei.recipe.schema import resolved
from ikusei.recipe.stages import Stage, is_road, prove, read_road, read_stages
from ikusei.report.pipeline import write_overview
from ikusei.run.files import discard, read_json, write_json, write_text
from ikusei.run.folder import Run


@dataclass(frozen=True)
class RoadLens:
    """Which sets are measured at the end, in the model that the road began with (`untrained` where it made one) and after each stage that
    raised a language model. Stages in `text` are asked in raw text, as `form` says."""

    task: str
    sets: str | None = None
    form: str | None = None
    text: tuple[str, ...] = ()
    settings: LensSettings = field(default_factory=LensSettings)


def train(recipe: str | Path, *overrides: str, folder: Path | None = None, console: Console | None = None) -> Outcome:
    """Carry out a recipe, of stages or of one. See `journey.train`."""
    path, console = Path(recipe), console or Console()
    if not is_road(path):
        return journey.train(path, *overrides, folder=folder, console=console)
    stages = read_stages(path, overrides)
    for stage in stages:
        prove(stage, stages)
    asked = read_lens(read_road(path, overrides), stages)
    source = path.read_text(encoding="utf-8") + "".join(f"# override: {override}\n" for override in overrides)
    whole = {"stages": [resolved(stage.recipe()) for stage in stages]} | ({} if asked is None else {"lens": plain(asked)})
    return _walk(stages, asked, Run.create(Path("runs"), path.stem, source, whole, {}, folder), console)


def resume(folder: str | Path, console: Console | None = None) -> Outcome:
    """Go on with a run, of stages or of one. See `journey.resume`."""
    path, console = Path(folder), console or Console()
    if not is_road(path / "recipe.yaml"):
        return journey.resume(path, console)
    document = read_road(path / "recipe.yaml")
    stages = read_stages(path / "recipe.yaml")
    return _walk(stages, read_lens(document, stages), Run.open(path), console)


def read_lens(document: Document, stages: Sequence[Stage]) -> RoadLens | None:
    """The section `lens` of a road, if it has one. Raises RecipeError or ValueError where it is not right."""
    if document.data.get("lens") is None:
        return None
    lines = {key[1:]: line for key, line in document.lines.items() if key[:1] == ("lens",)}
    overrides = {key[1:]: text for key, text in document.overrides.items() if key[:1] == ("lens",)}
    asked = build(RoadLens, Document(document.path, document.data["lens"], {(): 1, **lines}, overrides))
    unknown = set(asked.text) - {stage.name for stage in stages}
    if unknown:
        raise RecipeError(f"{document.path}:{lines.get((), 1)}: lens.text: no stage is called {', '.join(sorted(unknown))}")
    lens.read_task(asked.task)
    return asked


def _walk(stages: Sequence[Stage], asked: RoadLens | None, run: Run, console: Console) -> Outcome:
    """The stages that are left, each in its folder. The first that does not finish ends the road."""
    places = {stage.name: str((run.path / stage.left).resolve()) for stage in stages}
    done: list[dict[str, Any]] = []
    problem, status = None, "finished"
    try:
        for stage in stages:
            outcome = None if _status(run.path / stage.folder) == "finished" else _carry_out(stage, places, stages, run, console)
            done.append(read_json(run.path / stage.folder / "summary.json"))
            if outcome and outcome.summary["status"] != "finished":
                problem, status = outcome.problem, outcome.summary["status"]
                break
        if status == "finished":
            _arrive(stages, places, asked, run, console)
    except KeyboardInterrupt:
        status = "interrupted"
    except (OSError, ValueError) as error:
        problem, status = str(error), "failed"
        run.event("error", text=problem)
    except BaseException as error:
        run.event("error", text=repr(error))
        run.finish(summary_of(done, "failed"))
        raise
    run.finish(summary_of(done, status))
    write_overview(run.path, [stage.folder for stage in stages])
    return Outcome(run.path, read_json(run.path / "summary.json"), problem)


def _carry_out(stage: Stage, places: Mapping[str, str], stages: Sequence[Stage], run: Run, console: Console) -> Outcome:
    """One stage, from where it stands. Raises ValueError that names it where what is there now is not right."""
    console.print(f"stage {stage.number} of {len(stages)}: {stage.name}", style="bold", highlight=False)
    folder = run.path / stage.folder
    try:
        if _status(folder):
            return journey.resume(folder, console)
        discard(folder)  # of a kill before it was a run
        return journey.begin(stage.recipe(places), (run.path / "recipe.source.yaml").read_text(encoding="utf-8"), folder, console)
    except ValueError as error:
        raise ValueError(f"stage {stage.name}: {error}") from error


def _arrive(stages: Sequence[Stage], places: Mapping[str, str], asked: RoadLens | None, run: Run, console: Console) -> None:
    """What the road leaves: the last language model, and the masses of sets by stage where they are asked for."""
    raised = [stage for stage in stages if stage.leaves == "a language model"]
    if not raised:
        return
    run.save_final(lambda folder: copy_folder(Path(places[raised[-1].name]), folder))
    if asked is not None:
        console.print("measuring the mass of sets, stage by stage", highlight=False)
        see(asked, raised, places, run.path)


def see(asked: RoadLens, raised: Sequence[Stage], places: Mapping[str, str], run: Path) -> None:
    """Writes lens.svg and lens.json into the road's folder."""
    start = raised[0].recipe().model
    models = {start: start} if isinstance(start, str) else {"untrained": f"fresh:{places[raised[0].name]}"}
    models |= {stage.name: places[stage.name] for stage in raised}
    in_text = {*asked.text, "untrained"} if asked.text else set()  # the untrained one as the first stage after it
    models = {name: f"text:{model}" if name in in_text else model for name, model in models.items()}
    found = lens.measure(models, asked.task, asked.sets, asked.form, asked.settings)
    write_text(run / "lens.svg", lens.picture(found))
    write_json(run / "lens.json", [asdict(row) for row in found.rows])


def copy_folder(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copy2(file, target / file.name)


def summary_of(done: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    """Of a road: the first measurement before and the last one after that are of answers, the sums of what was counted."""
    before = next((each["eval"]["before"] for each in done if "reward" in each["eval"].get("before", {})), None)
    after = next((each["eval"]["after"] for each in reversed(done) if "reward" in each["eval"].get("after", {})), None)
    found = {name: measured for name, measured in (("before", before), ("after", after)) if measured}
    counted = {name: sum(each[name] for each in done) for name in ("steps", "tokens_sampled", "tokens_trained")}
    return {"status": status, "eval": found, **counted}


def _status(folder: Path) -> str | None:
    """That of the run in a folder; None where there is none yet."""
    return read_json(folder / "run.json")["status"] if (folder / "run.json").is_file() else None
