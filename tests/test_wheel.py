"""The wheel alone is enough: built, installed into a folder, and used from an empty one with nothing of the repository in reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
SMALL = ["train.steps=1", "train.prompts_per_step=2", "train.num_responses=2", "sampling.max_tokens=8", "eval.num_prompts=2",
         "eval.num_samples=2"]  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """The wheel unpacked at `place`, and the empty folder that it is used from."""

    place: Path
    desk: Path

    def __call__(self, *words: str, says: str = "", fails: int = 0) -> str:
        """What the command prints; `says` is written to its standard input."""
        return self.run([str(self.place / "bin" / "ikusei"), *words], says, fails)

    def python(self, code: str) -> str:
        return self.run([sys.executable, "-c", code])

    def run(self, command: list[str], says: str = "", fails: int = 0) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.place), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        done = subprocess.run(command, input=says, cwd=self.desk, env=environment, capture_output=True, text=True)
        assert done.returncode == fails, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from what git tracks or would add: what an earlier build left in the repository has no part in it."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run([*PIP, *build], check=True, cwd=folder)
    shutil.rmtree(folder / "source")  # from here on there is the wheel alone
    [built] = folder.glob("ikusei-*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(folder / "place"), str(built)], check=True, cwd=folder)
    (folder / "desk").mkdir()
    return Installed(folder / "place", folder / "desk")


def test_it_raises_the_seedling_in_an_empty_folder(wheel: Installed) -> None:
    """From the recipe's name to a model that answers."""
    result = json.loads(wheel("train", "quickstart", *SMALL, "--json", "--folder", "runs/one").splitlines()[0])
    assert (result["status"], result["steps"]) == ("finished", 1)
    assert "pass@1" in (wheel.desk / "runs" / "one" / "report.html").read_text("utf-8")
    assert "model " in wheel("chat", "runs/one", "--max-tokens", "4", says="1+1=\n")


def test_a_recipe_of_ones_own_and_what_lies_beside_ours(wheel: Installed) -> None:
    """`ikusei new` and `check`, and a recipe of the wheel whose reward is a file beside it; a claim names that file too."""
    (wheel.desk / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"{i}+{i}=", "answer": str(2 * i)}) + "\n" for i in range(64)))
    wheel("new", "mine.yaml", "--data", "mine.jsonl", "--reward", "exact")
    assert "mine" in (wheel.desk / "mine.yaml").read_text("utf-8")
    small = [each for each in SMALL if not each.startswith("eval")]
    found = wheel("check", "hacks/length", *small, "eval.num_prompts=2", "eval.num_samples=2")
    assert "detailed" in found
    code = "from ikusei.reproduce.claims.over_optimisation_rl import HOLES; print(HOLES.is_file(), HOLES)"
    assert wheel.python(code).split() == ["True", str(wheel.place / "ikusei" / "data" / "recipes" / "hacks" / "holes.py")]


def test_every_recipe_and_page_is_in_it_and_nothing_of_the_repository_is_used(wheel: Installed) -> None:
    for pattern in ("recipes/**/*.yaml", "recipes/**/*.py", "seedling/*.json", "seedling/*.safetensors"):
        files = [path.relative_to(ROOT) for path in ROOT.glob(pattern)]
        assert files and all((wheel.place / "ikusei" / "data" / file).read_bytes() == (ROOT / file).read_bytes() for file in files)
    pages = {path.name for path in (ROOT / "src/ikusei").rglob("*.j2")}
    assert pages == {path.name for path in (wheel.place / "ikusei").rglob("*.j2")}
    for read in (ROOT / "recipes").rglob("*.yaml"):  # a path that leads out of the recipes leads to something there too
        outside = [line.partition("path: ")[2].split(",")[0] for line in read.read_text("utf-8").splitlines() if "path: ../" in line]
        assert all((wheel.place / "ikusei" / "data" / read.relative_to(ROOT).parent / each).is_file() for each in outside), read
    told = wheel.python("import ikusei, importlib.metadata as m; print(ikusei.__file__, ikusei.__version__, m.version('ikusei'))").split()
    assert told == [str(wheel.place / "ikusei" / "__init__.py"), *told[1:2] * 2]
    assert wheel("--version").strip() == told[1]


def test_a_name_that_is_none_is_told_those_that_there_are(wheel: Installed) -> None:
    code = "from ikusei.recipe.find import find_recipe\ntry: find_recipe('quikstart')\nexcept ValueError as error: print(error)"
    told = wheel.python(code)
    assert told.startswith("quikstart: no such recipe (did you mean 'quickstart'?)") and "hacks/echo" in told
    assert "`ikusei train quickstart`" in wheel("train", fails=2)
