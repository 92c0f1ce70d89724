"""Read a recipe of stages. Each stage is a recipe: its own sections over the shared ones. `stage:NAME` stands for what an earlier stage
leaves: a model, or the rows that it collected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ikusei.recipe.reader import Document, Key, Problem, RecipeError, did_you_mean, parse, with_overrides
from ikusei.recipe.schema import Recipe, read_document, spelled_out
from ikusei.run.folder import DATA

REF = "stage:"
SHARED = frozenset({"name", "model", "stages", "lens"})  # keys that are of no stage
SECTIONS = SHARED | {section.name for section in fields(Recipe)}  # which no stage can be called, so that overrides mean one thing
TRAINING, COLLECTION = frozenset({"algorithm", "train"}), frozenset({"collect"})
Left = Literal["rows", "answers that nobody has judged", "a language model", "a reward model"]


@dataclass(frozen=True)
class Stage:
    """One stage: its number, its name and its document, with its overrides applied. In the document `stage:NAME` stands for what is not
    there yet; `leaves` is the kind of thing that this stage leaves to later ones."""

    number: int  # 1 for the first
    name: str
    document: Document
    leaves: Left = "rows"

    @property
    def collects(self) -> bool:
        return self.leaves == "rows"

    @property
    def takes(self) -> list[tuple[Key, str]]:
        """(key, name) of every reference to an earlier stage."""
        return list(references(self.document.data, ()))

    @property
    def folder(self) -> str:
        return f"{self.number}-{self.name}"

    @property
    def output(self) -> str:
        """Where its output is, in the pipeline's folder."""
        return f"{self.folder}/{DATA if self.collects else 'final'}"

    def recipe(self, places: Mapping[str, str] | None = None) -> Recipe:
        """The stage as a recipe. `places` replace the references, by the name of the stage."""
        data = {**self.document.data, "name": self.name}
        return read_document(replace(self.document, data=_replaced(data, places or {})))


def has_stages(recipe: Path) -> bool:
    """Whether a file is a recipe of stages. False also for a file that is no recipe."""
    try:
        return "stages" in parse(recipe).data
    except RecipeError:
        return False


def shared(document: Document, overrides: Sequence[str] = ()) -> Document:
    """The document after the overrides that are for the whole pipeline, such as `model=...`."""
    return with_overrides(document, [text for text in overrides if _head(text) in SHARED])


def read_stages(document: Document, overrides: Sequence[str] = ()) -> list[Stage]:
    """The stages of a recipe, in order. Raises RecipeError with what is wrong in them."""
    document = shared(document, overrides)
    names = _names(document)
    overrides = [text for text in overrides if _head(text) not in SHARED]
    stages: list[Stage] = []
    starts: Any = document.data.get("model", "seedling")
    for n, name in enumerate(names):
        own = _document_of(document, n, starts)
        collects = "collect" in own.data
        mine = {text: each for each in overrides for text in _meant_for(name, names, collects, each)}
        own = with_overrides(spelled_out(own), list(mine))
        own = replace(own, overrides={key: mine[text] for key, text in own.overrides.items()})
        stage = Stage(n + 1, name, own.with_problems(_reference_problems(own, stages)))
        recipe = stage.recipe()
        leaves: Left = "a reward model" if "reward" in recipe.needs else "a language model"
        if recipe.collect is not None:
            leaves = "answers that nobody has judged" if recipe.collect.kind == "answers" else "rows"
        own.with_problems(_kind_problems(own, stages, leaves)).raise_problems()
        stages.append(replace(stage, leaves=leaves))
        if leaves == "a language model":
            starts = REF + name
    return stages


def _names(document: Document) -> list[str]:
    """The names of the stages. Raises RecipeError where one is missing or cannot be used."""
    given = document.data["stages"]
    listed = [stage.get("name") if isinstance(stage, dict) else None for stage in given] if isinstance(given, list) else []
    names = [name for name in listed if isinstance(name, str) and name and not set(name) & set("/:.= ") and name not in SECTIONS]
    if not listed or len(set(names)) < len(listed):
        needed = "a list of stages is needed, each a mapping with a `name` of its own, without dots, colons, slashes and spaces, and not "
        needed += f"that of a section ({', '.join(sorted(SECTIONS))})"
        raise RecipeError(f"{document.path}:{document.lines.get(('stages',), 1)}: stages: {needed}; got {listed}")
    return names


def _head(override: str) -> str:
    """`train` of train.lr=1e-5."""
    return override.partition("=")[0].strip().partition(".")[0]


def _document_of(document: Document, n: int, starts: Any) -> Document:
    """The sections of stage `n` (from 0) over the shared ones, as a document whose lines are those of the file."""
    own = {key: value for key, value in document.data["stages"][n].items() if key != "name"}
    foreign = TRAINING if "collect" in own else COLLECTION
    shared = {key: value for key, value in document.data.items() if key not in SHARED | foreign and key not in own}
    inside = ("stages", str(n))
    lines = {key: line for key, line in document.lines.items() if key and key[0] in shared}
    lines |= {key[2:]: line for key, line in document.lines.items() if key[:2] == inside}
    problems = [
        replace(each, key=each.key[2:] if each.key[:2] == inside else each.key)
        for each in document.problems
        if each.key[:2] == inside or each.key[:1] != ("stages",)
    ]
    return Document(document.path, {"model": starts, **shared, **own}, lines, problems=tuple(problems))


def _meant_for(name: str, names: Sequence[str], collects: bool, override: str) -> list[str]:
    """The override as this stage reads it; [] where it is for another stage or for a section that this one does not have."""
    head = _head(override)
    if head in names:
        return [override.strip().removeprefix(f"{head}.")] if head == name else []
    foreign = TRAINING if collects else COLLECTION
    return [] if head in foreign else [override]


def _reference_problems(document: Document, earlier: Sequence[Stage]) -> list[Problem]:
    known = [stage.name for stage in earlier]
    unknown = [(key, name) for key, name in references(document.data, ()) if name not in known]
    allowed = f"allowed: {', '.join(known) or 'none, for this is the first'}; a stage starts from one before it"
    return [Problem(key, f"no earlier stage is called {name!r}{did_you_mean(name, known)}; {allowed}") for key, name in unknown]


def _kind_problems(document: Document, earlier: Sequence[Stage], leaves: Left) -> list[Problem]:
    """Problems where a stage leaves another kind of thing than is needed there."""
    left, problems = {stage.name: stage.leaves for stage in earlier}, []
    for key, name in references(document.data, ()):
        wanted: tuple[Left, ...] = ("a language model", "a reward model") if leaves == "a reward model" else ("a language model",)
        if key[0] in ("task", "eval_task", "replay_task"):
            wanted = ("rows",)
        if key[0] in ("rewards", "policy"):
            wanted = ("a reward model",)
        if left[name] not in wanted:
            fitting = ", ".join(each for each, kind in left.items() if kind in wanted) or "none before this one"
            text = f"stage {name!r} leaves {left[name]}, and here it takes {' or '.join(wanted)}; stages that leave that: {fitting}"
            problems.append(Problem(key, text))
    return problems


def references(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    """Every `stage:NAME` in plain data, with its key."""
    if isinstance(value, str) and value.startswith(REF):
        yield key, value.removeprefix(REF)
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from references(inside, (*key, name))
    if isinstance(value, list):
        for position, inside in enumerate(value):
            yield from references(inside, (*key, str(position)))


def _replaced(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, places) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, places) for each in value]
    return places.get(value.removeprefix(REF), value) if isinstance(value, str) and value.startswith(REF) else value
