"""The stages of a recipe, read: each is a recipe, its own sections over the shared ones, and may name what an earlier stage leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ikusei.guard.workers import RewardWorkers
from ikusei.models.learned_reward import LearnedReward
from ikusei.models.load import check_kind, context_named, load_tokenizer
from ikusei.recipe.reader import Document, Key, Problem, RecipeError, did_you_mean, parse, with_overrides
from ikusei.recipe.rows import held_out_rows, replayed_rows, train_rows
from ikusei.recipe.schema import Recipe, read_document, spelled_out
from ikusei.recipe.validate import validate
from ikusei.run.folder import DATA

REF = "stage:"
SHARED = frozenset({"name", "model", "stages", "lens"})  # keys that are of no stage
SECTIONS = SHARED | {section.name for section in fields(Recipe)}  # which no stage can be called, so that overrides mean one thing
TRAINING, COLLECTING = frozenset({"algorithm", "train"}), frozenset({"collect"})
Left = Literal["rows", "answers that nobody has judged", "a language model", "a reward model"]


@dataclass(frozen=True)
class Stage:
    """One stage: its place, its name and its part of the document, after its overrides, where `stage:NAME` stands for what is
    not there yet."""

    number: int  # 1 for the first
    name: str
    document: Document
    leaves: Left = "rows"

    @property
    def collects(self) -> bool:
        return self.leaves == "rows"

    @property
    def takes(self) -> list[tuple[Key, str]]:
        """What it takes from earlier stages: the key that names it, and the stage."""
        return list(_references(self.document.data, ()))

    @property
    def folder(self) -> str:
        return f"{self.number}-{self.name}"

    @property
    def left(self) -> str:
        """Where in the pipeline's folder lies what it leaves."""
        return f"{self.folder}/{DATA if self.collects else 'final'}"

    def recipe(self, places: Mapping[str, str] | None = None) -> Recipe:
        """Read, with every reference replaced by its place where these are given."""
        data = {**self.document.data, "name": self.name}
        return read_document(replace(self.document, data=_replaced(data, places or {})))


def has_stages(recipe: Path) -> bool:
    """True where a file, which may be no recipe at all, has stages."""
    try:
        return "stages" in parse(recipe).data
    except RecipeError:
        return False


def shared(document: Document, overrides: Sequence[str] = ()) -> Document:
    """A recipe of stages after the overrides of what is of no stage, such as `model=...`."""
    return with_overrides(document, [text for text in overrides if _head(text) in SHARED])


def read_stages(document: Document, overrides: Sequence[str] = ()) -> list[Stage]:
    """The stages of a recipe. Raises RecipeError with what is wrong in them."""
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


def prove(stage: Stage, stages: Sequence[Stage]) -> None:
    """Tries what can be tried of a stage before those before it have run. Raises ValueError."""
    try:
        recipe = stage.recipe()
        validate(recipe)
        needs = recipe.needs
        specs = [spec for spec in recipe.reward_specs if not spec.learned]
        learned = [spec for spec in recipe.reward_specs if spec.learned]
        judges = [model for spec in learned for model in LearnedReward.read(spec.name, spec.settings).models]
        if "value" in needs and recipe.policy.critic not in ("head", "separate"):
            judges.append(recipe.policy.critic)
        for model in judges:
            if not model.startswith(REF):
                check_kind(model, reward=True)
        if isinstance(recipe.model, str) and not recipe.model.startswith(REF) and "reward" not in needs:
            check_kind(recipe.model, reward=False)
        before = next((each.recipe() for each in stages if recipe.model == REF + each.name), None)
        if before is not None and all(each.policy.lora and each.policy.lora.bits for each in (before, recipe)):
            raise ValueError(
                "policy.lora.bits: the stage that it begins from has adapters beside 4 bits too, and rounding what that leaves would lose "
                "what they learned; leave bits out of one of them"
            )
        _prove_rows(stage, recipe, _origin(recipe, stages))
        if specs:
            with RewardWorkers(specs):
                pass
    except RecipeError:
        raise
    except ValueError as error:
        raise ValueError(f"stage {stage.name}: {error}") from error


def _prove_rows(stage: Stage, recipe: Recipe, origin: str | None) -> None:
    """Tries the rows that are there already, with the tokenizer of the model that the stages are made from."""
    data = stage.document.data
    waits = {name: _refers(data.get(name)) for name in ("task", "replay_task")}
    if origin is None:  # made on the way, and its tokenizer with it
        for task in [recipe.task] * (not waits["task"]) + [recipe.replay_task] * (not waits["replay_task"]):
            _ = task and task.num_rows("train")
        return
    tokenizer, context = load_tokenizer(origin), context_named(origin)
    if not waits["task"]:
        train_rows(recipe, tokenizer, context)
    if not _refers(data.get("eval_task", data.get("task"))):
        held_out_rows(recipe, tokenizer, context)
    if not waits["replay_task"]:
        replayed_rows(recipe, tokenizer, context)


def _origin(recipe: Recipe, stages: Sequence[Stage]) -> str | None:
    """The model that the one of a recipe was raised from, through all stages before; None where one is made."""
    model = recipe.model
    while isinstance(model, str) and model.startswith(REF):
        model = next(stage.recipe().model for stage in stages if stage.name == model.removeprefix(REF))
    return model if isinstance(model, str) else None


def _names(document: Document) -> list[str]:
    """The names of the stages. Raises RecipeError where one has none that serves."""
    given = document.data["stages"]
    found = [stage.get("name") if isinstance(stage, dict) else None for stage in given] if isinstance(given, list) else []
    names = [name for name in found if isinstance(name, str) and name and not set(name) & set("/:.= ") and name not in SECTIONS]
    if not found or len(set(names)) < len(found):
        told = "a list of stages is needed, each a mapping with a `name` of its own, without dots, colons, slashes and spaces, and not "
        told += f"that of a section ({', '.join(sorted(SECTIONS))})"
        raise RecipeError(f"{document.path}:{document.lines.get(('stages',), 1)}: stages: {told}; got {found}")
    return names


def _head(override: str) -> str:
    """`train` of train.lr=1e-5."""
    return override.partition("=")[0].strip().partition(".")[0]


def _document_of(document: Document, n: int, starts: Any) -> Document:
    """The sections of stage `n` (from 0) over the shared ones, as a document whose lines are those of the file."""
    own = {key: value for key, value in document.data["stages"][n].items() if key != "name"}
    foreign = TRAINING if "collect" in own else COLLECTING
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
    """The override as this stage reads it: one of its own, or of a section that it has."""
    head = _head(override)
    if head in names:
        return [override.strip().removeprefix(f"{head}.")] if head == name else []
    foreign = TRAINING if collects else COLLECTING
    return [] if head in foreign else [override]


def _reference_problems(document: Document, earlier: Sequence[Stage]) -> list[Problem]:
    known = [stage.name for stage in earlier]
    unknown = [(key, name) for key, name in _references(document.data, ()) if name not in known]
    told = f"allowed: {', '.join(known) or 'none, for this is the first'}; a stage starts from one before it"
    return [Problem(key, f"no earlier stage is called {name!r}{did_you_mean(name, known)}; {told}") for key, name in unknown]


def _kind_problems(document: Document, earlier: Sequence[Stage], leaves: Left) -> list[Problem]:
    """References to a stage that leaves another kind of thing than is wanted there."""
    left, problems = {stage.name: stage.leaves for stage in earlier}, []
    for key, name in _references(document.data, ()):
        wanted: tuple[Left, ...] = ("a language model", "a reward model") if leaves == "a reward model" else ("a language model",)
        if key[0] in ("task", "eval_task", "replay_task"):
            wanted = ("rows",)
        if key[0] in ("rewards", "policy"):
            wanted = ("a reward model",)
        if left[name] not in wanted:
            fitting = ", ".join(each for each, kind in left.items() if kind in wanted) or "none before this one"
            told = f"stage {name!r} leaves {left[name]}, and here it takes {' or '.join(wanted)}; stages that leave that: {fitting}"
            problems.append(Problem(key, told))
    return problems


def _references(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    """Every `stage:NAME` in plain data, with its key."""
    if isinstance(value, str) and value.startswith(REF):
        yield key, value.removeprefix(REF)
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _references(inside, (*key, name))
    if isinstance(value, list):
        for position, inside in enumerate(value):
            yield from _references(inside, (*key, str(position)))


def _replaced(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, places) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, places) for each in value]
    return places.get(value.removeprefix(REF), value) if isinstance(value, str) and value.startswith(REF) else value


def _refers(value: Any) -> bool:
    return any(True for _ in _references(value, ()))
