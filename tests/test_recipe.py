"""The recipe reader on classes of this file, and the recipe on the classes it is made of.

Where the settings of a section do not matter, those of this file stand in for them: the tables of `ikusei.recipe.schema` are texts.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from ikusei.algos import ALGORITHMS, cispo, grpo, named_values
from ikusei.recipe import schema as recipe
from ikusei.recipe.reader import Document, RecipeError, build, dump_yaml, parse, plain, resolve_path, with_overrides
from ikusei.recipe.schema import Recipe, read_recipe, resolved
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.types import Sampling


@dataclass(frozen=True, slots=True)
class Train:
    steps: int = 10
    lr: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    shuffle: bool = True
    clip: float | None = 1.0
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"got steps={self.steps}; allowed: steps >= 1")


@dataclass(frozen=True)
class Part:
    path: str
    weight: float = 1.0


@dataclass(frozen=True)
class Whole:
    title: str
    train: Train = field(default_factory=Train)
    parts: tuple[Part, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    tags: tuple[str, ...] = ()
    limit: int | Literal["all"] = "all"


@dataclass(frozen=True)
class RewardSpec:
    name: str
    path: str
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GRPO:
    clip_low: float = 0.2
    clip_high: float = 0.2


@dataclass(frozen=True)
class LanguageModelling:
    supervised: ClassVar[bool] = True


@dataclass(frozen=True)
class Supervised:
    epochs: int = 1


@dataclass(frozen=True)
class MakeModel:
    architecture: str
    tokenizer: str = "characters"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Empty:
    pass


def document(folder: Path, text: str, *overrides: str) -> Document:
    path = folder / "it.yaml"
    path.write_text(text, encoding="utf-8")
    return with_overrides(parse(path), overrides)


def whole(folder: Path, text: str, *overrides: str) -> Whole:
    return build(Whole, document(folder, text, *overrides))


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        whole(folder, text, *overrides)
    return str(raised.value).replace(f"{folder}/", "").split("\n")


# ---------------------------------------------------------------------------------------------------------------- scalars


@pytest.mark.parametrize(
    ("written", "value"),
    zip(
        ["1e-6", "1E-6", "1e6", "1.e-6", ".5", "-.5", "3", "1_000", "0x10", "+1.5e+3", ".inf"],
        [1e-6, 1e-6, 1e6, 1e-6, 0.5, -0.5, 3.0, 1000.0, 16.0, 1500.0, inf],
        strict=True,
    ),
)
def test_numbers_are_numbers(tmp_path: Path, written: str, value: float) -> None:
    for lr in (
        whole(tmp_path, f"title: a\ntrain:\n  lr: {written}\n").train.lr,
        whole(tmp_path, "title: a", f"train.lr={written}").train.lr,
    ):
        assert type(lr) is float and lr == value


@pytest.mark.parametrize("written", ["1_000", "0x3e8", "1000", "0o1750", "+1000"])
def test_whole_numbers(tmp_path: Path, written: str) -> None:
    assert whole(tmp_path, f"title: a\ntrain: {{steps: {written}}}").train.steps == 1000


@pytest.mark.parametrize(
    ("key", "written", "told"),
    [
        ("lr", '"1e-6"', 'should be a valid number (drop the quotes: 1e-6), got "1e-6"'),
        ("lr", "on", 'should be a valid number, got "on"'),
        ("lr", "12:30", 'should be a valid number, got "12:30"'),
        ("lr", "1,000", 'should be a valid number, got "1,000"'),
        ("lr", "~", "should be a valid number, got null"),
        ("lr", "true", "should be a valid number, got true"),
        ("lr", ".nan", "dates, tags and .nan have no place in a recipe (a text goes in quotes), got nan"),
        ("lr", "2026-11-01", "dates, tags and .nan have no place in a recipe (a text goes in quotes), got 2026-11-01"),
        ("lr", "!big 3", "dates, tags and .nan have no place in a recipe (a text goes in quotes), got 3"),
        ("steps", "1e3", "should be a whole number (write 1000), got 1000.0"),
        ("steps", "2.5", "should be a whole number, got 2.5"),
        ("steps", "true", "should be a whole number, got true"),
        ("steps", "'0x10'", 'should be a whole number (drop the quotes: 0x10), got "0x10"'),
        ("shuffle", "on", 'should be a valid boolean (write true), got "on"'),
        ("shuffle", "'no'", 'should be a valid boolean (write false), got "no"'),
        ("shuffle", "1", "should be a valid boolean, got 1"),
        ("schedule", "cosin", "should be 'cosine' or 'constant' (did you mean 'cosine'?), got \"cosin\""),
        ("betas", "0.9", "should be a list (write [0.9]), got 0.9"),
    ],
)
def test_what_is_no_such_value_is_refused_with_its_line_and_a_fix(tmp_path: Path, key: str, written: str, told: str) -> None:
    assert f"it.yaml:4: train.{key}: {told}" in problems(tmp_path, f"title: a\n# why\ntrain:\n  {key}: {written}\n")
    override = f"train.{key}={written}"
    assert f"override {override!r}: train.{key}: {told}" in problems(tmp_path, "title: a\ntrain:\n  lr: 1\n", override)


def test_texts_stay_texts(tmp_path: Path) -> None:
    tags = whole(tmp_path, "title: 'on'\ntags: [on, yes, 12:30, no, 1e, '1e-6', \"~\", ねこ, '2026-11-01', 1e3_0]").tags
    assert tags == ("on", "yes", "12:30", "no", "1e", "1e-6", "~", "ねこ", "2026-11-01", "1e3_0")
    assert problems(tmp_path, "title: 0x10") == ["it.yaml:1: title: should be a valid string (put it in quotes: '16'), got 16"]


def test_null_is_for_what_may_be_absent(tmp_path: Path) -> None:
    assert whole(tmp_path, "title: a\ntrain: {clip: ~}").train.clip is None
    assert whole(tmp_path, "title: a", "train.clip=null").train.clip is None
    assert whole(tmp_path, "title: a", "train.clip=").train.clip is None


def test_anchors_and_merges(tmp_path: Path) -> None:
    text = "title: a\nextras:\n  base: &base {shuffle: &no false, steps: 7}\ntrain:\n  <<: *base\n  lr: 2\n"
    assert whole(tmp_path, text).train == Train(steps=7, lr=2.0, shuffle=False)
    told = problems(tmp_path, text.replace("steps: 7", "steps: x"))
    assert told == ['it.yaml:4: train.steps: should be a whole number, got "x"']


# --------------------------------------------------------------------------------------------------------------- structure


def test_everything_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    text = "title: a\nparts:\n  - path: x\n  - {path: y, weight: 2}\nextras: {a: [1, 2.5, {b: null}]}\ndata: rows.jsonl\nlimit: 5\n"
    assert whole(tmp_path, text) == Whole(
        title="a",
        parts=(Part("x"), Part("y", 2.0)),
        extras={"a": [1, 2.5, {"b": None}]},
        data=(tmp_path / "rows.jsonl").resolve(),
        limit=5,
    )


def test_all_problems_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """titel: a
train:
  learning_rate: 1e-6
  lr: "1e-6"
  schedul: cosine
parts:
  - path: 3
  - {weigth: 2, path: x}
  - y
limit: 2.5
3: x
"""
    assert problems(tmp_path, text, "train.steps=x", "parts.1.weight=-") == [
        "it.yaml:1: titel: unknown key (did you mean 'title'?), got \"a\"; allowed: title, train, parts, extras, data, tags, limit",
        "it.yaml:1: title: missing, and it has no default",
        "it.yaml:3: train.learning_rate: unknown key, got 1e-06; allowed: steps, lr, schedule, shuffle, clip, betas",
        'it.yaml:4: train.lr: should be a valid number (drop the quotes: 1e-6), got "1e-6"',
        "it.yaml:5: train.schedul: unknown key (did you mean 'schedule'?), got \"cosine\"; "
        "allowed: steps, lr, schedule, shuffle, clip, betas",
        "it.yaml:7: parts.0.path: should be a valid string (put it in quotes: '3'), got 3",
        "it.yaml:8: parts.1.weigth: unknown key (did you mean 'weight'?), got 2; allowed: path, weight",
        'it.yaml:9: parts.2: should be a mapping, got "y"',
        "it.yaml:10: limit: should be a whole number, got 2.5; or it should be 'all', got 2.5",
        "it.yaml:11: 3: a key must be a text; put it in quotes",
        "override 'parts.1.weight=-': parts.1.weight: should be a valid number, got [null]",
        "override 'train.steps=x': train.steps: should be a whole number, got \"x\"",
    ]


def test_a_section_that_contradicts_itself_is_told_with_its_line(tmp_path: Path) -> None:
    text = "title: a\ntrain:\n  lr: 1\n  steps: 0\n"
    assert problems(tmp_path, text) == ["it.yaml:2: train: got steps=0; allowed: steps >= 1"]
    told = ["it.yaml:2: override 'train.steps=-1': train: got steps=-1; allowed: steps >= 1"]
    assert problems(tmp_path, text, "train.steps=-1") == told
    assert problems(tmp_path, "title: a", "train.steps=0") == ["override 'train.steps=0': train: got steps=0; allowed: steps >= 1"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: a\ntrain: {lr: 1}\ntitle: b\n", 'it.yaml:3: while constructing a mapping: found duplicate key "title"'),
        ("title: a\ntrain:\n  lr: 1\n  lr: 2\n", 'it.yaml:4: while constructing a mapping: found duplicate key "lr"'),
        ("title: a\n\ttags: []\n", "it.yaml:2: while scanning for the next token: found character '\\t'"),
        ("title: [a\n", "it.yaml:2: while parsing a flow sequence: expected ',' or ']'"),
        ("- title\n", 'it.yaml:1: a recipe is made of lines such as `seed: 1`, got ["title"]'),
        ("title: a\n---\ntitle: b\n", "it.yaml:2: expected a single document"),
        ("title: \x07\n", "it.yaml:1: "),
        ("", "it.yaml:1: title: missing, and it has no default"),
    ],
)
def test_what_is_not_a_recipe(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, text)[0].startswith(told)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read: .*No such file"):
        parse(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"title: \xff\xfe")
    with pytest.raises(RecipeError, match=r"bytes\.yaml: cannot be read: .*UTF-8"):
        parse(tmp_path / "bytes.yaml")


# --------------------------------------------------------------------------------------------------------------- overrides


def test_overrides_win_over_the_file_and_the_last_over_the_first(tmp_path: Path) -> None:
    text = "title: a\ntrain:\n  lr: 1\n  steps: 3\nparts: [{path: x}, {path: y}]\n"
    read = whole(tmp_path, text, "train.lr=3e-5", "train.lr=2e-5", "parts.1.weight=2", "title=b=c", "tags=[x, '1']", "extras.new.deep=1")
    assert (read.train, read.title, read.tags) == (Train(steps=3, lr=2e-5), "b=c", ("x", "1"))
    assert read.parts == (Part("x"), Part("y", 2.0)) and read.extras == {"new": {"deep": 1}}
    assert whole(tmp_path, text, "train.lr=x", "train={steps: 4}").train == Train(steps=4)
    assert whole(tmp_path, text.replace("lr: 1", "lr: .nan"), "train.lr=1").train.lr == 1.0


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.lr", "override 'train.lr': write key=value, for example train.lr=3e-5"),
        ("=3", "override '=3': write key=value, for example train.lr=3e-5"),
        ("train..lr=3", "override 'train..lr=3': write key=value, for example train.lr=3e-5"),
        ("parts.2.weight=3", "override 'parts.2.weight=3': no entry '2' in a list of 1; entries count from 0"),
        ("parts.x=3", "override 'parts.x=3': no entry 'x' in a list of 1; entries count from 0"),
        ("title.x=3", "override 'title.x=3': there is no 'x' inside \"a\", which is a single value"),
        (
            "tags=[1",
            "override 'tags=[1': the value is not YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
        ),
        ("tran.lr=1", "override 'tran.lr=1': tran: unknown key (did you mean 'train'?), got {\"lr\": 1}; "),
        ("parts.0={weight: 1}", "override 'parts.0={weight: 1}': parts.0.path: missing, and it has no default"),
        ("parts=3", "override 'parts=3': parts: should be a list (write [3]), got 3"),
    ],
)
def test_a_problem_in_an_override_names_the_override(tmp_path: Path, override: str, told: str) -> None:
    (only,) = problems(tmp_path, "title: a\nparts: [{path: x}]\n", override)
    assert only.startswith(told)


# ------------------------------------------------------------------------------------------------------ paths, round trips


def test_paths_start_at_the_recipe_then_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for each in (here / "both", here / "only_here", there / "both", there / "only_there"):
        each.mkdir(parents=True)
    monkeypatch.chdir(there)
    assert resolve_path("both", here) == here / "both"
    assert resolve_path("only_there", here) == there / "only_there"
    assert resolve_path("../there/both", here) == there / "both"
    assert resolve_path("nowhere/at_all", here) == Path("nowhere/at_all")
    assert resolve_path(str(there), here) == there


def test_plain_data_reads_back_equal(tmp_path: Path) -> None:
    written = Whole(
        title="on",
        train=Train(lr=1e-6, clip=None, steps=3, schedule="constant"),
        parts=(Part("ねこはかわいい。", 1e22), Part("a: b # c\n", 0.1)),
        extras={"x": {"1e-6": ["1e-6", 1e-6, True, "true", None, "~", [], {}]}},
        data=tmp_path,
        tags=("\n", " ", "12:30", "0x10", "2026-11-01", "w " * 200, "=", "<<", "!t", "&a", "*a", "\x07"),
        limit=12,
    )
    assert whole(tmp_path, dump_yaml(plain(written))) == written


# -------------------------------------------------------------------------------------------------------------- the recipe


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.SETTINGS, "policy", f"{__name__}:Empty")
    monkeypatch.setitem(recipe.SETTINGS, "eval", f"{__name__}:Empty")
    own = {"grpo": f"{__name__}:GRPO", "lm": f"{__name__}:LanguageModelling"}
    monkeypatch.setitem(recipe.NAMED, "algorithm", {**ALGORITHMS, **own})
    monkeypatch.setattr(recipe, "ONLINE_LOOP", f"{__name__}:Train")
    monkeypatch.setattr(recipe, "SUPERVISED_LOOP", f"{__name__}:Supervised")
    monkeypatch.setattr(recipe, "REWARD", f"{__name__}:RewardSpec")
    monkeypatch.setattr(recipe, "MAKE_MODEL", f"{__name__}:MakeModel")


def read(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "quick.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, overrides)


def refused(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        read(folder, text, *overrides)
    return str(raised.value).replace(f"{folder}/", "").split("\n")


FULL = """
seed: 3
task: {name: arithmetic, digits: 2}
rewards:
  - exact
  - {name: length, weight: 0.5, settings: {budget: 100}}
  - {path: mine.py:score}
  - {name: style, path: mine.py:score}
algorithm:
  name: grpo
  clip_high: 0.28
sampling: {temperature: 0.7, stop: ["\\n"]}
train: {lr: 1e-6}
eval:        # nothing but comments: its defaults
"""


@pytest.mark.usefixtures("stand_ins")
def test_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    found = read(tmp_path, FULL, "task.digits=4", "rewards.0.weight=2")
    assert (found.name, found.seed, found.model) == ("quick", 3, "seedling")
    assert found.task == found.eval_task == Arithmetic(digits=4)
    assert found.rewards == (
        RewardSpec("exact", "exact", 2.0),
        RewardSpec("length", "length", 0.5, {"budget": 100}),
        RewardSpec("score", f"{tmp_path}/mine.py:score"),
        RewardSpec("style", f"{tmp_path}/mine.py:score"),
    )
    assert found.algorithm == GRPO(clip_high=0.28)
    assert found.sampling == Sampling(temperature=0.7, stop=("\n",))
    assert found.train == Train(lr=1e-6) and found.eval == found.policy == Empty()


@pytest.mark.usefixtures("stand_ins")
def test_short_forms_and_the_loop_that_belongs_to_the_algorithm(tmp_path: Path) -> None:
    text = "task: arithmetic\nalgorithm: grpo\neval_task: {name: arithmetic, digits: 1}"
    short = read(tmp_path, text, "task.terms=3", "algorithm.clip_low=0.1")
    assert (short.task, short.eval_task, short.algorithm) == (Arithmetic(terms=3), Arithmetic(digits=1), GRPO(clip_low=0.1))
    assert read(tmp_path, text, "algorithm=lm").train == Supervised()
    told = ["override 'train.steps=3': train.steps: unknown key, got 3; allowed: epochs"]
    assert refused(tmp_path, text, "algorithm=lm", "train.steps=3") == told


@pytest.mark.usefixtures("stand_ins")
def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("seedling", "grown", "letters"):
        (tmp_path / name).mkdir()
    text = "task: arithmetic\nalgorithm: grpo\n"
    assert read(tmp_path, text + "model: grown").model == str(tmp_path / "grown")
    assert read(tmp_path, text + "model: seedling").model == "seedling"
    assert read(tmp_path, text + "model: Qwen/Qwen3-0.6B").model == "Qwen/Qwen3-0.6B"
    assert read(tmp_path, text + "model: ./nowhere").model == "./nowhere"
    assert read(tmp_path, text + "model: {architecture: qwen3, config: {hidden_size: 32}}").model == MakeModel(
        "qwen3", config={"hidden_size": 32}
    )
    assert read(tmp_path, text + "model: {architecture: qwen3, tokenizer: letters}").model == MakeModel("qwen3", str(tmp_path / "letters"))
    assert refused(tmp_path, text + "model: {confg: {}}") == [
        "quick.yaml:3: model.architecture: missing, and it has no default",
        "quick.yaml:3: model.confg: unknown key (did you mean 'config'?), got {}; allowed: architecture, tokenizer, config",
    ]


def test_a_name_of_a_value_can_be_overridden(tmp_path: Path) -> None:
    """By another name, and each of its numbers too."""
    (tmp_path / "r.yaml").write_text("task: arithmetic\nalgorithm: dapo\n")
    read = lambda *overrides: read_recipe(tmp_path / "r.yaml", overrides).algorithm  # noqa: E731
    assert read() == grpo.GRPO(scale_rewards="group", aggregate="token", clip_high=0.28)
    assert read("algorithm.name=lite_ppo") == grpo.GRPO(scale_rewards="batch", aggregate="token")
    assert read("algorithm.name=cispo") == cispo.CISPO()
    assert read("algorithm.clip_high=0.3") == grpo.GRPO(scale_rewards="group", aggregate="token", clip_high=0.3)


@pytest.mark.usefixtures("stand_ins")
def test_names_that_are_not_there(tmp_path: Path) -> None:
    own = "or a class of your own as my_file.py:MyClass or package.module:MyClass"
    tasks = f"allowed: arithmetic, cat_lover, files, gym, nursery, {own}"
    known = ", ".join([*ALGORITHMS, *named_values()])
    text = (
        "task: aritmetic\nalgorithm:\n  name: grop\n  anything: 1\nrewards: [exakt, exact, exact, {weight: x}]\nsampling: {top_k: -1}\nx: 1"
    )
    told = refused(tmp_path, text, "eval_task.digits=3")
    assert told[:3] == [
        f"quick.yaml:1: task.name: unknown (did you mean 'arithmetic'?), got \"aritmetic\"; {tasks}",
        f"quick.yaml:3: algorithm.name: unknown (did you mean 'grpo'?), got \"grop\"; allowed: {known}, {own}",
        "quick.yaml:5: rewards.0: unknown reward (did you mean 'exact'?), got \"exakt\"; "
        "allowed: code, exact, length, math, think_format, votes, learned, or my_file.py:function",
    ]
    assert "quick.yaml:5: rewards.2: a second reward called 'exact'; give it another `name`" in told
    assert "quick.yaml:5: rewards.3.path: missing, and it has no default" in told
    assert any(line.startswith("quick.yaml:6: sampling: ") and "top_k=-1" in line for line in told)
    assert any(line.startswith("quick.yaml:7: x: unknown key, got 1; allowed: ") for line in told)
    assert f"override 'eval_task.digits=3': eval_task.name: missing, got {{\"digits\": 3}}; {tasks}" in told
    assert refused(tmp_path, "seed: 1\nalgorithm: grpo") == [f"quick.yaml:1: task.name: missing; {tasks}"]
    (only,) = refused(tmp_path, "task: arithmetic\nalgorithm: grpo\nsampling:\nevaluation:\n")
    assert only.startswith("quick.yaml:4: evaluation: unknown key, got null; allowed: ")


OWN = """
from __future__ import annotations
from dataclasses import dataclass
import neighbour_of_own

@dataclass(frozen=True)
class Mine:
    size: int = neighbour_of_own.SIZE

@dataclass(frozen=True)
class Named:
    name: str = ""

class Plain: ...

@dataclass(frozen=True)
class Holding:
    it: Plain

@dataclass(frozen=True)
class Dangling:
    it: Nowhere
"""


@pytest.mark.usefixtures("stand_ins")
def test_a_class_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "neighbour_of_own.py").write_text("SIZE = 7")
    text = f"task: own.py:Mine\nalgorithm: {{name: '{__name__}:GRPO', clip_high: 0.3}}\n"
    first, again = read(tmp_path, text), read(tmp_path, text, "task.size=7")
    assert plain(first.task) == {"size": 7} and first.algorithm == GRPO(clip_high=0.3)
    assert first == again and first != read(tmp_path, text, "task.size=8")
    assert refused(tmp_path, text, "task.size=x") == ["override 'task.size=x': task.size: should be a whole number, got \"x\""]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own.py:Mien", "no dataclass 'Mien' in own.py (did you mean 'Mine'?); it has: Mine, Named, Holding, Dangling"),
        ("own.py:Plain", "no dataclass 'Plain' in own.py; it has: Mine, Named, Holding, Dangling"),
        ("own.py:Named", "Named has a field called name, which a recipe cannot fill"),
        ("own.py:Holding", "Holding has a field that a recipe cannot fill: Unable to generate pydantic-core schema for <class '"),
        ("own.py:Dangling", "Dangling has a field that a recipe cannot fill: name 'Nowhere' is not defined; allowed: numbers, "),
        ("broken.py:Mine", '"broken.py:Mine" cannot be imported: ZeroDivisionError at broken.py:2: division by zero'),
        ("syntax.py:Mine", '"syntax.py:Mine" cannot be imported: SyntaxError: invalid syntax (syntax.py, line 1)'),
        ("nowhere.py:Mine", '"nowhere.py:Mine" cannot be imported: FileNotFoundError: '),
        ("no_such_package:Mine", "\"no_such_package:Mine\" cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_class_of_ones_own_that_cannot_be_had(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "neighbour_of_own.py").write_text("SIZE = 7")
    (tmp_path / "broken.py").write_text("def f():\n    return 1 / 0\nf()\n")
    (tmp_path / "syntax.py").write_text("class Mine Mine:\n")
    (only,) = refused(tmp_path, f"task:\n  name: {name}\nalgorithm: grpo\n")
    assert only.startswith(f"quick.yaml:2: task.name: {told}")


@pytest.mark.usefixtures("stand_ins")
def test_a_resolved_recipe_reads_back_equal_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("mine.py", ""), ("own.py", OWN), ("neighbour_of_own.py", "SIZE = 7")):
        (tmp_path / name).write_text(text)
    elsewhere = tmp_path / "runs" / "a"
    elsewhere.mkdir(parents=True)
    own = f"task: own.py:Mine\nalgorithm: '{__name__}:Empty'\nmodel: {{architecture: qwen3}}\nsampling: {{stop: [あ]}}"
    files = "task: {name: files, path: mine.py, columns: {prompt: q}}\nalgorithm: lm\n"
    gym = "task: {name: gym, task: gcd, config: {max_value: 99}}\neval_task: {name: cat_lover}\nalgorithm: grpo\n"
    for text in (FULL, own, files, gym):
        monkeypatch.chdir(tmp_path)
        written = read(tmp_path, text)
        data = resolved(written)
        assert data["task"]["name"] in ("arithmetic", f"{tmp_path}/own.py:Mine", "files", "gym") and data["sampling"]["top_p"] == 1.0
        (elsewhere / "recipe.yaml").write_text(dump_yaml(data), encoding="utf-8")
        monkeypatch.chdir(elsewhere)
        assert read_recipe(Path("recipe.yaml")) == written
        assert resolved(read_recipe(Path("recipe.yaml"))) == data


PATHS = {
    *recipe.TASKS.values(),
    *recipe.ALGORITHMS.values(),
    *recipe.SETTINGS.values(),
    recipe.ONLINE_LOOP,
    recipe.SUPERVISED_LOOP,
    recipe.REWARD,
    recipe.MAKE_MODEL,
}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_class_of_the_tables_is_a_frozen_dataclass(path: str) -> None:
    """By its source: importing all of them takes longer than this whole file."""
    module, _, name = path.partition(":")
    file = Path(recipe.__file__).parents[2] / (module.replace(".", "/") + ".py")
    (found,) = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name]
    assert ast.unparse(found.decorator_list[0]).startswith("dataclass(frozen=True")


def test_the_reader_starts_without_torch() -> None:
    code = "import sys, ikusei.recipe.schema; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
