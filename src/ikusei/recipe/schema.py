"""The recipe: one YAML file that describes a whole run, read strictly into the frozen classes that the run is made of.

    seed: 0
    model: seedling                          # a folder, a hub id, `seedling`, or a mapping that makes one from scratch
    task: {name: arithmetic, digits: 3}      # a name and the fields of its class; `task: arithmetic` where the defaults do
    rewards: [exact, {path: my_reward.py:score, weight: 0.5}]
    algorithm: {name: my_loss.py:MyLoss}     # a user's own class, from a file or `package.module:Class`
    train: {steps: 100}                      # the settings of the loop that the algorithm learns by
    collect: {kind: pairs}                   # instead of algorithm and train: write the model's own answers as data

`key=value` overrides win over the file, and the file over defaults. A relative path is looked up in the recipe's folder first, then in the
working directory. The classes are imported only when a recipe is read, so the command line starts without torch.

Left out: recipes made of other recipes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ikusei.algos import ALGORITHMS, named_values
from ikusei.guard.outcomes import LEARNED
from ikusei.recipe.classes import imported, name_of, own_class
from ikusei.recipe.find import find_recipe
from ikusei.recipe.reader import Document, Problem, build, did_you_mean, document, parse, plain, resolve_path, show, with_overrides
from ikusei.rewards import BUILT_IN
from ikusei.tasks import TASKS
from ikusei.types import Sampling

if TYPE_CHECKING:  # these import torch
    from ikusei.backends.local import LocalSettings
    from ikusei.guard.outcomes import RewardSpec
    from ikusei.guard.watch import WatchSettings
    from ikusei.loops.collect import CollectSettings
    from ikusei.loops.evaluate import EvalSettings
    from ikusei.models.make import MakeModel
    from ikusei.protocols import Task

NAMED: dict[str, Mapping[str, str]] = {"task": TASKS, "eval_task": TASKS, "replay_task": TASKS, "algorithm": ALGORITHMS}
OPTIONAL = frozenset({"eval_task", "replay_task"})
SETTINGS = {
    "policy": "ikusei.backends.local:LocalSettings",
    "sampling": "ikusei.types:Sampling",
    "eval": "ikusei.loops.evaluate:EvalSettings",
    "watch": "ikusei.guard.watch:WatchSettings",
}
COLLECT = "ikusei.loops.collect:CollectSettings"
ONLINE_LOOP = "ikusei.loops.online:OnlineSettings"
SUPERVISED_LOOP = "ikusei.loops.supervised:SupervisedSettings"
REWARD = "ikusei.guard.outcomes:RewardSpec"
MAKE_MODEL = "ikusei.models.make:MakeModel"

NOT_FOLDERS = frozenset({"seedling", "characters"})  # names of ours, also where a folder is called so


@dataclass(frozen=True)
class Recipe:
    """A whole run. The classes of its sections are in the tables above. A recipe that collects has neither algorithm nor train (None)."""

    name: str
    seed: int  # 0 or more
    model: str | MakeModel
    policy: LocalSettings
    task: Task
    eval_task: Task
    replay_task: Task | None
    rewards: tuple[RewardSpec, ...]  # empty: those of the task
    algorithm: Any  # an Algorithm
    sampling: Sampling
    train: Any  # OnlineSettings or SupervisedSettings
    collect: CollectSettings | None
    eval: EvalSettings
    watch: WatchSettings

    @property
    def loop(self) -> Any:
        """The settings of the loop that this recipe runs: online, supervised or collection."""
        return self.train if self.collect is None else self.collect

    @property
    def needs(self) -> frozenset[str]:
        """What the algorithm needs of the loop (protocols.py); empty without an algorithm."""
        return frozenset() if self.algorithm is None else frozenset(self.algorithm.needs)

    @property
    def reward_specs(self) -> tuple[RewardSpec, ...]:
        """The rewards in use: the recipe's own, else those of the task, else those of the task it is evaluated on."""
        if self.rewards:
            return self.rewards
        brought = self.task.rewards or self.eval_task.rewards
        return tuple(imported(REWARD)(path.replace(":", ".").rpartition(".")[2], path) for path in brought)

    @property
    def gold(self) -> list[str]:
        """The names of the rewards that are measured and never trained on."""
        return [spec.name for spec in self.reward_specs if spec.gold]


Source = str | Path | Mapping[str, Any] | Recipe


def document_of(recipe: Source) -> Document:
    """A recipe as plain data, from a file, from a mapping of its sections, or from a `Recipe`. Raises RecipeError."""
    if isinstance(recipe, Recipe):
        return document({**resolved(recipe), "name": recipe.name}, recipe.name)
    if isinstance(recipe, Mapping):
        return document(recipe, str(recipe.get("name", "recipe")))
    return parse(find_recipe(recipe))


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file. Raises RecipeError with everything that is wrong in the file and the overrides."""
    return read_document(parse(path), overrides)


def read_document(document: Document, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a parsed document. Raises RecipeError."""
    document = _with_named_values(spelled_out(with_overrides(spelled_out(document), overrides)))
    classes, document = _choose_classes(_with_defaults(document))
    built = build(make_dataclass("Recipe", classes.items(), frozen=True), _with_paths(document))
    absent = {"eval_task": built.task, "replay_task": None, "algorithm": None, "train": None, "collect": None}
    return Recipe(**{**absent, **vars(built)})


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data with every default filled in. Written as YAML it reads back to an equal recipe."""
    data = plain(recipe)
    for section, registry in NAMED.items():
        if data[section] is not None:
            data[section] = {"name": name_of(type(getattr(recipe, section)), registry), **data[section]}
    return {section: value for section, value in data.items() if value is not None}


def spelled_out(document: Document) -> Document:
    """The document with short forms written out, so that overrides can reach inside: `task: gym` becomes `task: {name: gym}`."""
    data = dict(document.data)
    for section in NAMED.keys() & data.keys():
        if isinstance(data[section], str):
            data[section] = {"name": data[section]}
    if isinstance(data.get("rewards"), list):
        data["rewards"] = [{"path": each} if isinstance(each, str) else each for each in data["rewards"]]
    return replace(document, data=data)


def _with_named_values(document: Document) -> Document:
    """The document with a named value (`dapo`) replaced by its class and numbers; numbers that are given beside the name win."""
    given = document.data.get("algorithm")
    if not isinstance(given, dict) or str(given.get("name")) not in named_values():
        return document
    value = named_values()[str(given["name"])]
    return replace(document, data={**document.data, "algorithm": {**value, **given, "name": value["name"]}})


def _with_defaults(document: Document) -> Document:
    """Sections that are absent, or empty because all their lines are commented out, take their defaults."""
    trains = {} if "collect" in document.data else {"train": {}}
    empty = {"rewards": [], **trains, **{section: {} for section in SETTINGS}}
    given = {key: value for key, value in document.data.items() if value is not None or key not in (*empty, *OPTIONAL)}
    return replace(document, data={"name": document.path.stem, "seed": 0, "model": "seedling", **empty, **given})


def _choose_classes(document: Document) -> tuple[dict[str, Any], Document]:
    """The class of each section, and the document without the names that chose them. Any stands for a class that is not known: of its
    fields nothing can be said."""
    data, folder = dict(document.data), document.path.parent
    collects = "collect" in data
    classes: dict[str, Any] = {"name": str, "seed": Annotated[int, Field(ge=0)]}
    classes["model"] = imported(MAKE_MODEL) if isinstance(data["model"], dict) else str
    classes |= {section: imported(path) for section, path in SETTINGS.items()}
    problems: list[Problem] = []
    if collects:
        classes["collect"], data["collect"] = imported(COLLECT), data["collect"] or {}
        problems += _problems_beside_collect(data)

    for section in NAMED:
        may_be_absent = section in OPTIONAL or (collects and section == "algorithm")
        if may_be_absent and section not in data:
            continue
        try:
            classes[section], data[section] = _class_and_fields(section, data.get(section), folder)
        except ValueError as error:
            classes[section], data[section] = Any, None
            problems.append(Problem((section, "name"), str(error)))

    train = _loop_class(classes.get("algorithm", Any))
    if not collects or train is not Any:
        classes["train"] = train
    classes["rewards"] = tuple[imported(REWARD), ...]
    return classes, replace(document, data=data).with_problems(problems)


def _problems_beside_collect(data: Mapping[str, Any]) -> list[Problem]:
    text = "given beside collect; a recipe collects or trains: drop one of them"
    return [Problem((section,), text) for section in ("algorithm", "train") if section in data]


def _loop_class(algorithm: Any) -> Any:
    """The settings of the loop that an algorithm learns by; Any where the algorithm is not known."""
    if algorithm is Any:
        return Any
    supervised = vars(algorithm).get("supervised", False)  # see `protocols.Algorithm`
    return imported(SUPERVISED_LOOP if supervised else ONLINE_LOOP)


def _with_paths(document: Document) -> Document:
    """The document with the models and files that it names found from the recipe's folder, and rewards with both name and path."""
    data, folder = dict(document.data), document.path.parent
    data["model"] = _with_folders(data["model"], folder)
    policy = data["policy"]
    if isinstance(policy, dict) and policy.get("critic") not in (None, "head", "separate"):
        data["policy"] = {**policy, "critic": _with_folders(policy["critic"], folder)}
    if not isinstance(data["rewards"], list):
        return replace(document, data=data)
    data["rewards"] = [_reward(each, folder) for each in data["rewards"]]
    return replace(document, data=data).with_problems(_reward_problems(data["rewards"]))


def _class_and_fields(kind_of: str, section: Any, folder: Path) -> tuple[type, dict[str, Any]]:
    """The class that a section names, and its other fields. Raises ValueError with the names that are allowed."""
    registry = NAMED[kind_of]
    known = [*registry, *(named_values() if kind_of == "algorithm" else ())]
    allowed = f"allowed: {', '.join(known)}, or a class of your own as my_file.py:MyClass or package.module:MyClass"
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        got = "" if section is None else f", got {show(section)}"
        raise ValueError(f"missing{got}; {allowed}")
    name = section["name"]
    if name not in registry and ":" not in name:
        raise ValueError(f"unknown{did_you_mean(name, known)}, got {show(name)}; {allowed}")
    kind = imported(registry[name]) if name in registry else own_class(name, folder)
    return kind, {key: value for key, value in section.items() if key != "name"}


def _with_folders(model: Any, folder: Path) -> Any:
    """A model with its folder looked up like a path; also the tokenizer of a model to be made, which may be a folder."""
    if isinstance(model, dict) and "tokenizer" in model:
        return {**model, "tokenizer": _with_folders(model["tokenizer"], folder)}
    if isinstance(model, list):
        return [_with_folders(each, folder) for each in model]
    if not isinstance(model, str) or model in NOT_FOLDERS:
        return model
    found = resolve_path(model, folder)
    return str(found) if found.exists() else model


def _reward(given: Any, folder: Path) -> Any:
    """A reward with both name and path, each filled in from the other, and with the paths in its settings looked up."""
    path = given.get("path", given.get("name")) if isinstance(given, dict) else None
    if not isinstance(path, str):
        return given
    file, _, function = path.rpartition(":")
    name = given.get("name", path.replace(":", ".").rpartition(".")[2])
    settings = given.get("settings")
    if path == LEARNED and isinstance(settings, dict):
        found = {key: _with_folders(value, folder) for key, value in settings.items() if key in ("model", "models")}
        given = {**given, "settings": {**settings, **found}}
    if path in BUILT_IN and isinstance(settings, dict):
        files = BUILT_IN.constant(path, "files", ())
        found = {key: str(resolve_path(value, folder)) for key, value in settings.items() if key in files and isinstance(value, str)}
        given = {**given, "settings": {**settings, **found}}
    return {**given, "name": name, "path": f"{resolve_path(file, folder)}:{function}" if file.endswith(".py") else path}


def _reward_problems(rewards: Sequence[Any]) -> list[Problem]:
    problems, names, built_in = [], [], (*BUILT_IN, LEARNED)
    for position, reward in enumerate(rewards):
        name, path = (reward.get("name"), reward.get("path")) if isinstance(reward, dict) else (None, None)
        if isinstance(path, str) and path not in built_in and not {":", "."} & set(path):
            allowed = f"allowed: {', '.join(built_in)}, or my_file.py:function"
            text = f"unknown reward{did_you_mean(path, built_in)}, got {show(path)}; {allowed}"
            problems.append(Problem(("rewards", str(position)), text))
        if name is not None and name in names:
            problems.append(Problem(("rewards", str(position)), f"a second reward called {name!r}; give it another `name`"))
        names.append(name)
    return problems
