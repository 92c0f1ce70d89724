"""Rewards, tasks and algorithms are found by their files: one file makes a name."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ikusei
from ikusei.algos import ALGORITHMS, grpo, is_algorithm, named_values, reinforce
from ikusei.forest import plant
from ikusei.guard.worker_main import load
from ikusei.protocols import credited, first_state, next_state
from ikusei.recipe.reader import Document
from ikusei.recipe.schema import Recipe, read_document
from ikusei.recipe.validate import validate
from ikusei.registry import Registry
from ikusei.rewards import BUILT_IN
from ikusei.tasks import TASKS
from ikusei.types import Group, Prompt, Response

SETTINGS: dict[str, dict[str, Any]] = {"length": {"max_chars": 9, "soft_chars": 3}, "votes": {"path": "votes.jsonl"}}
FIELDS = {"files": {"path": "rows.jsonl"}, "gym": {"task": "gcd"}}

REWARD = '''
class Shouting:
    """1 where the answer is in capitals and ends as the file says."""
    executes = True
    files = ("marks",)
    example = "{path: shouting, settings: {marks: '!'}}    # capitals"
    def __init__(self, marks: str) -> None:
        self.mark = open(marks).read()
    def __call__(self, prompt, response, **columns):
        return float(response.isupper() and response.endswith(self.mark))
'''
TASK = '''
from dataclasses import dataclass
from typing import ClassVar
from ikusei.types import Example
@dataclass(frozen=True)
class Letters:
    """One letter to repeat."""
    size: int = 3
    rewards: ClassVar = ()
    def num_rows(self, split): return self.size
    def row(self, split, index): return Example(chr(97 + index))
@dataclass(frozen=True)
class Helper:
    size: int = 0
'''
ALGORITHM = '''
from dataclasses import dataclass
@dataclass(frozen=True)
class ZeroLoss:
    """Learns nothing."""
    scale: float = 1.0
    needs = frozenset({"old"})
    def keep(self, group): return True
    def loss(self, out, forest): raise AssertionError("not called here")
VALUES = {"half_zero": ZeroLoss(scale=0.5)}
'''
USE = """
import io, json, sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
import ikusei
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.recipe.schema import read_recipe, resolved
from ikusei.types import Group, Prompt, Response

told = {"package": ikusei.__file__}
try:
    read_recipe(Path("wrong.yaml"))
except ValueError as error:
    told["wrong"] = str(error)
assert "ikusei.algos.zero" not in sys.modules and "ikusei.rewards.shouting" not in sys.modules, "a name needs no import"
recipe = read_recipe(Path("recipe.yaml"))
told |= {"recipe": resolved(recipe), "sandboxed": recipe.rewards[0].sandboxed}
from ikusei.recipe.template import write_recipe
write_recipe(Path("new.yaml"), Path("rows.jsonl"), "shouting", "seedling")
told["new"] = Path("new.yaml").read_text()
with RewardWorkers([RewardSpec("s", "shouting", settings={"marks": "marks.txt"}, unconfined=True)]) as workers:
    (scored,) = workers.score([Group(Prompt("a", (), "a"), (Response((), (), "A!"),))])
told["earned"] = scored.responses[0].total
from ikusei.cli.main import main
with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
    main(["new", "--help"])
print(json.dumps({**told, "help": shown.getvalue()}))
"""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_reached_by_name(name: str) -> None:
    kind = type(recipe(algorithm=name).algorithm)
    assert kind is found(ALGORITHMS[name]) and dataclasses.is_dataclass(kind) and kind.__module__ == f"ikusei.algos.{name}"


def test_every_named_value_is_reached_by_name() -> None:
    values = {**grpo.VALUES, **reinforce.VALUES}
    assert values.keys() == named_values().keys() and not values.keys() & ALGORITHMS.keys()
    assert {name: recipe(algorithm=name).algorithm for name in values} == values


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_reached_by_name(name: str) -> None:
    assert type(recipe(task={"name": name, **FIELDS.get(name, {})}).task) is found(TASKS[name])


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_reward_is_reached_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("votes.jsonl").write_text("")
    (spec,) = recipe(rewards=[{"path": name, "settings": SETTINGS.get(name, {})}]).rewards
    assert callable(load(spec).function) and spec.sandboxed == (name == "code")


def test_a_file_is_all_that_a_new_name_takes(tmp_path: Path) -> None:
    """A reward, a task and an algorithm are added to a copy of the package and used by their names, in a process of its own."""
    shutil.copytree(Path(ikusei.__file__).parent, tmp_path / "ikusei", ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in (("rewards/shouting.py", REWARD), ("tasks/letters.py", TASK), ("algos/zero.py", ALGORITHM)):
        (tmp_path / "ikusei" / file).write_text(text)
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "marks.txt").write_text("!")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "answer": "A"}\n' * 4)
    text = "task: {name: letters, size: 5}\nrewards: [{path: shouting, settings: {marks: marks.txt}}]\nalgorithm: half_zero\n"
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "wrong.yaml").write_text(text.replace("letters", "leters").replace("half_zero", "zeros").replace("shouting", "shoutin"))
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["package"] == str(tmp_path / "ikusei" / "__init__.py")
    assert told["recipe"]["task"] == {"name": "letters", "size": 5}
    assert told["recipe"]["algorithm"] == {"name": "zero", "scale": 0.5}
    assert told["recipe"]["rewards"][0]["settings"] == {"marks": str(tmp_path / "marks.txt")}
    assert told["sandboxed"] and "  - {path: shouting, settings: {marks: '!'}}    # capitals\n" in told["new"]
    assert "did you mean 'letters'?" in told["wrong"] and "half_zero" in told["wrong"] and "did you mean 'shouting'?" in told["wrong"]
    assert told["earned"] == 1.0 and "shouting" in told["help"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("class A:\n    def loss(self): ...\nclass B:\n    def loss(self): ...", "defines A, B; allowed: one in a file"), ("X = 1", None)],
)
def test_files_that_define_several_or_none(text: str, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_algos").mkdir()
    (tmp_path / "some_algos" / "__init__.py").write_text("")
    (tmp_path / "some_algos" / "mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_algos", raising=False)
    importlib.import_module("some_algos")
    registry = Registry("some_algos", is_algorithm)
    if problem is None:
        assert "mine" not in registry and list(registry) == [] and "no.such" not in registry
    else:
        with pytest.raises(ValueError, match=problem):
            list(registry)


OWN = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Plain:
    needs = frozenset({"old"})
    def keep(self, group): return True
    def loss(self, out, forest): ...
@dataclass(frozen=True)
class Counting(Plain):
    def start(self): return {"steps": 0}
    def advance(self, state, metrics): return {"steps": state["steps"] + 1}
@dataclass(frozen=True)
class Half(Plain):
    def start(self): return {}
"""


def test_a_class_of_ones_own_may_keep_a_state(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    plain, counting, half = (recipe(algorithm=f"{tmp_path / 'own.py'}:{name}") for name in ("Plain", "Counting", "Half"))
    for each in (plain, counting):
        validate(each)
        assert each.needs == {"old"}
    with pytest.raises(ValueError, match="has one of start and advance; allowed: both, or neither"):
        validate(half)
    for each, first, second in ((plain, {}, {}), (counting, {"steps": 0}, {"steps": 1})):
        assert first_state(each.algorithm) == first and next_state(each.algorithm, first, {}) == second
    forest = plant(groups := [Group(Prompt("1", (1,), ""), (Response((2,), (True,), ""),))])
    assert credited(plain.algorithm, groups, forest, {}) is forest


def recipe(**sections: Any) -> Recipe:
    return read_document(Document(Path("recipe.yaml"), {"task": "arithmetic", "algorithm": "grpo", **sections}, {(): 1}))


def found(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
