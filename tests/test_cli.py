"""The command line as a person uses it: their own rows and reward from `new` to `chat`, every recipe, and bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from ruamel import yaml

from ikusei.cli.main import main
from ikusei.recipe.schema import read_recipe

HERE = Path(__file__).parents[1]
SMALL = [
    "train.steps=2",
    "train.prompts_per_step=2",
    "train.num_responses=4",
    "sampling.max_tokens=24",
    "eval.num_prompts=2",
    "eval.num_samples=4",
]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with ten rows and a reward of one's own."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i}00+{i}11=", "answer": str(200 * i + 11), "place": i} for i in range(1, 11)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_reward.py").write_text(
        "def score(prompt, response, answer, place, **columns):\n    return float(response.strip().endswith(answer)) + 0.01 * place\n"
    )
    return tmp_path


def test_own_rows_and_reward_from_new_to_chat(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("new", "my.yaml", "--data", "my.jsonl", "--reward", "my_reward.py:score") == 0
    assert run("new", "my.yaml", "--data", "my.jsonl") == 2  # never overwritten
    assert run("check", "my.yaml", *SMALL) == 0
    told = capsys.readouterr().out
    assert "9 train rows, 1 test rows" in told and "ready to train" in told and "gold answers earn" in told
    assert run("train", "my.yaml", *SMALL, "--json") == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["status"] == "finished" and summary["steps"] == 2
    assert set(summary["eval"]) == {"before", "after"}
    assert summary["eval"]["before"]["reward"]["value"] > 0  # 0.01 for the place, at least
    folder = Path(summary["folder"])
    assert (folder / "report.html").stat().st_size > 10_000 and "report.html" in captured.err
    assert run("train", "--resume", folder) == 2  # it has finished
    assert run("train", "my.yaml", "--folder", folder) == 2  # a run is never overwritten
    assert run("runs", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["status"] == "finished"
    assert run("sample", "100+111=", "--num", "3", "--max-tokens", "16", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    monkeypatch.setattr("sys.stdin", io.StringIO("100+111=\n\n"))
    assert run("chat", "--max-tokens", "16") == 0
    assert str(folder / "final") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("reward", ["exact", "math", "think_format", "length", "votes"])
def test_new_writes_a_recipe_for_every_reward(reward: str, desk: Path) -> None:
    (desk / "votes.jsonl").write_text('{"prompt": "100+111=", "responses": ["a", "b"], "votes": [1, 0]}\n')
    assert run("new", f"{reward}.yaml", "--data", "my.jsonl", "--reward", reward) == 0
    assert len(read_recipe(desk / f"{reward}.yaml").rewards) == 1


def test_supervised_rows_are_learned_from(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "talk.jsonl").write_text("".join(json.dumps({"prompt": f"ねこは{i}？", "completion": "だいすき。"}) + "\n" for i in range(6)))
    assert run("new", "talk.yaml", "--data", "talk.jsonl") == 0
    assert run("check", "talk.yaml") == 0
    assert "だいすき。" in capsys.readouterr().out
    assert run("train", "talk.yaml", "train.steps=30", "--json") == 0
    folder = Path(json.loads(capsys.readouterr().out)["folder"])
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.2 * losses[0]
    assert run("sample", "ねこは2？", "--model", folder, "--num", "8", "--max-tokens", "16", "--json") == 0
    answers = [each["text"] for each in json.loads(capsys.readouterr().out)]
    assert answers.count("だいすき。") >= 6


OWN_SHORTCUTS = {
    "cold_start": ["task.digits=3"],  # without end, where those of two digits are listed and looked at, each stage anew
    "filtered_dpo": ["filtered_dpo.train.examples_per_step=2"],  # of the few pairs some are dropped at once
    "road": ["model=seedling"],  # after one step from nothing there would be no two answers to compare
}


@pytest.mark.parametrize("recipe", sorted([*HERE.glob("recipes/*.yaml"), *HERE.glob("recipes/hacks/*.yaml")]), ids=lambda path: path.stem)
def test_every_recipe_runs(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["train.steps=1", "eval.num_prompts=2", "eval.num_samples=2"]
    stages = yaml.YAML(typ="safe").load(recipe).get("stages", [])
    if stages:
        short += ["collect.num_prompts=12", "collect.prompts_per_step=12"]
        short += ["lens.settings={num_prompts: 2, num_samples: 1, num_members: 2}"] if "lens" in recipe.read_text() else []
    else:
        short.append("sampling.max_tokens=8")
    short += OWN_SHORTCUTS.get(recipe.stem, [])
    assert run("train", recipe, *short, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == max(1, len(stages))


BAD = {
    "a mistyped key": (["sampling.temprature=1"], "temperature"),
    "a rate in quotes": (["train.lr='1e-6'"], "drop the quotes"),
    "a rate that is none": (["train.lr=12:30"], "train.lr"),
    "a reward that is not there": (["rewards=[{path: 'my_reward.py:scroe'}]"], "it has: score"),
    "a reward that does not import": (["rewards=[{path: 'nowhere.py:score'}]"], "nowhere.py"),
    "a column that is missing": (["task.columns={prompt: question}"], "question"),
    "a file that is empty": (["task.path=empty.jsonl"], "no rows"),
    "a broken row": (["task.path=broken.jsonl"], "broken.jsonl:2"),
    "a prompt longer than the context": (["task.path=long.jsonl"], "the context holds"),
    "a model folder without a model": (["model=."], "config.json"),
    "a model folder without a tokenizer": (["model=bare"], "tokenizer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_costs_nothing(case: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "empty.jsonl").write_text("")
    (desk / "broken.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "1+2="\n')
    (desk / "long.jsonl").write_text(json.dumps({"prompt": "1+" * 600}) + "\n" + json.dumps({"prompt": "1+1="}) + "\n")
    (desk / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (desk / "bare" / name).write_bytes((HERE / "seedling" / name).read_bytes())
    assert run("new", "my.yaml", "--data", "my.jsonl", "--reward", "my_reward.py:score") == 0
    overrides, expected = BAD[case]
    assert run("train", "my.yaml", *SMALL, *overrides) == 2
    assert expected in capsys.readouterr().err
    assert not (desk / "runs").exists()


def test_a_reward_that_always_raises_stops_the_run_with_its_line(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "boom.py").write_text("def score(prompt, response, **columns):\n    return columns['ansver']\n")
    assert run("new", "my.yaml", "--data", "my.jsonl", "--reward", "boom.py:score") == 0
    assert run("check", "my.yaml", *SMALL) == 2
    assert run("train", "my.yaml", *SMALL) == 1
    assert "boom.py:2" in capsys.readouterr().out.replace("\n", "")
