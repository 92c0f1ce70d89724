"""Roads and the methods beyond GRPO as a person meets them at the command line: what is refused before anything is trained, in which words,
what `check` and `new` say, and what a road passes from stage to stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ikusei.backends.export import export
from ikusei.cli.main import main
from ikusei.models.load import load_reward_model, load_tokenizer
from ikusei.pipeline.staged import summary_of
from ikusei.run.files import read_json
from laws import worlds

PAIRS = """\
model: model
task: {name: files, path: pairs.jsonl}
algorithm: dpo
sampling: {max_tokens: 6, stop_ids: [40, 41, 42, 43, 44, 45, 46]}
train: {steps: 2, examples_per_step: 3, lr: 1e-3}
eval: {num_prompts: 2, num_samples: 2}
"""
ONLINE = """\
model: model
task: {name: arithmetic, digits: 1}
rewards: ["calm.py:calm"]
algorithm: ppo
sampling: {max_tokens: 6, stop_ids: [40, 41, 42, 43, 44, 45, 46]}
train: {steps: 1, prompts_per_step: 2, num_responses: 2, lr: 1e-3}
eval: {num_prompts: 2, num_samples: 2}
"""
ROAD = """\
model: model
task: {name: arithmetic, digits: 1}
sampling: {max_tokens: 6, stop_ids: [40, 41, 42, 43, 44, 45, 46]}
eval: {num_prompts: 2, num_samples: 2}
stages:
  - {name: sft, task: {name: files, path: answers.jsonl}, algorithm: lm, train: {steps: 1, examples_per_step: 2}}
  - {name: ranked, rewards: ["calm.py:calm"], collect: {num_prompts: 6, num_responses: 4, prompts_per_step: 3}}
  - name: judge
    task: {name: files, path: "stage:ranked"}
    algorithm: bradley_terry
    train: {steps: 1, examples_per_step: 2, normalise: {num_prompts: 2, num_samples: 2}}
  - name: ppo
    rewards: [{path: learned, settings: {model: "stage:judge"}}]
    algorithm: ppo
    train: {steps: 1, prompts_per_step: 2, num_responses: 2}
"""
GOOD = [{"prompt": f"{n}+1=", "chosen": f" {n}", "rejected": f"no {n}"} for n in range(8)]


def ikusei(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    policy = worlds.make_talker()
    export(policy.causal.model, policy.tokenizer, folder / "model")
    judge = load_reward_model(str(folder / "model"), 0)
    judge.config.pad_token_id = policy.tokenizer.pad_token_id
    export(judge, policy.tokenizer, folder / "judge")
    plain = load_tokenizer(str(folder / "model"))
    plain.chat_template = (
        "{% for message in messages %}{{ '<|user|>' if message.role == 'user' else '<|assistant|>' }}"
        "{{ message.content if loop.last else message.content[:1] }}{{ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    export(policy.causal.model, plain, folder / "rewriting")
    return folder


@pytest.fixture
def desk(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, rewards, recipes, and rows of every shape."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "judge", "rewriting"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "calm.py").write_text("def calm(prompt, response, **columns):\n    return sum(map(ord, response)) % 7 / 7\n")
    for name, text in (("pairs", PAIRS), ("online", ONLINE), ("road", ROAD)):
        (tmp_path / f"{name}.yaml").write_text(text)
    write_rows(tmp_path / "pairs.jsonl", GOOD)
    write_rows(tmp_path / "ranks.jsonl", [{"prompt": f"{n}+1=", "responses": [f" {n}", "x", "y"], "ranking": [1, 2, 2]} for n in range(8)])
    write_rows(tmp_path / "labels.jsonl", [{"prompt": f"{n}+1=", "completion": f" {n}", "label": n % 2 == 0} for n in range(8)])
    write_rows(tmp_path / "answers.jsonl", [{"prompt": f"{n}+1=", "completion": f" {n}"} for n in range(8)])
    write_rows(tmp_path / "asked.jsonl", [{"prompt": f"{n}+1="} for n in range(8)])
    return tmp_path


def add_to_pairs(row: dict[str, Any]) -> Callable[[Path], None]:
    return lambda desk: write_rows(desk / "pairs.jsonl", [*GOOD, row])


def ab(desk: Path) -> None:
    write_rows(desk / "pairs.jsonl", [{"prompt": f"{n}=", "response_a": " 1", "response_b": " 2"} for n in range(4)])


def turns(desk: Path) -> None:
    talk = [{"role": who, "content": "hello"} for who in ("user", "assistant", "user", "assistant")]
    write_rows(desk / "talk.jsonl", [{"messages": talk}] * 3)


def alone(desk: Path) -> None:
    write_rows(desk / "one.jsonl", [{"prompt": "a", "responses": ["b"], "ranking": [1]}])


def collecting(desk: Path) -> None:
    (desk / "collect.yaml").write_text("model: model\ntask: {name: files, path: asked.jsonl}\ncollect: {}\n")


def misspelt(desk: Path) -> None:
    (desk / "bad.yaml").write_text(ROAD.replace("num_responses: 2}", "num_response: 2}"))


LEARNED = "rewards=[{path: learned, settings: {model: %s}}]"
BAD: dict[str, tuple[str, list[str], Callable[[Path], None] | None, str]] = {
    "chosen equal to rejected": (
        "pairs",
        [],
        add_to_pairs({"prompt": "a", "chosen": "b", "rejected": "b"}),
        "pairs.jsonl:9: chosen and rejected are equal",
    ),
    "equal once they are cut": (
        "pairs",
        ["train.cut_at=20"],
        add_to_pairs({"prompt": "a", "chosen": "b" * 30, "rejected": "b" * 31}),
        "are the same once they are cut at 20 tokens",
    ),
    "a pair longer than the context": (
        "pairs",
        [],
        add_to_pairs({"prompt": "a", "chosen": "b" * 99, "rejected": "b"}),
        "the context holds 96",
    ),
    "a ranking with one answer": ("pairs", ["task.path=one.jsonl"], alone, "one.jsonl:1: responses is a list of 1"),
    "columns of other names": (
        "pairs",
        [],
        ab,
        "columns 'chosen', 'rejected' missing. Columns seen: prompt, response_a, response_b. DPO needs prompt, chosen, rejected. "
        "Try: columns: {chosen: response_a, rejected: response_b}",
    ),
    "a reward model from answers": (
        "pairs",
        ["task.path=answers.jsonl", "algorithm=bradley_terry"],
        None,
        "Columns seen: prompt, completion. BradleyTerry needs prompt, chosen, rejected",
    ),
    "kto without labels": ("pairs", ["task.path=answers.jsonl", "algorithm=kto"], None, "column 'label' missing"),
    "dpo on a task that only asks": ("pairs", ["task=arithmetic"], None, "Columns seen: prompt, answer. DPO needs"),
    "kto with one row a step": (
        "pairs",
        ["task.path=labels.jsonl", "algorithm=kto", "train.examples_per_step=1"],
        None,
        "train.examples_per_step: got 1",
    ),
    "a template that hides earlier turns": (
        "pairs",
        ["model=rewriting", "algorithm=lm", "task={name: files, path: talk.jsonl, test_share: 0.0}"],
        turns,
        "{% generation %}",
    ),
    "filtered without rewards": ("pairs", ["train.filtered=true"], None, "train.filtered compares answers by them"),
    "replay without rows": ("pairs", ["train.replay.examples=2"], None, "and no replay_task"),
    "replay of rows that only ask": (
        "pairs",
        ["replay_task={name: files, path: asked.jsonl}", "train.replay.examples=2"],
        None,
        "replay_task: row 0: it has a prompt and no response",
    ),
    "replay for a reward model": (
        "pairs",
        ["task.path=ranks.jsonl", "algorithm=bradley_terry", "replay_task={name: files, path: answers.jsonl}", "train.replay.examples=2"],
        None,
        "this algorithm trains a reward model",
    ),
    "a reward model as the model": ("pairs", ["model=judge"], None, "it is a reward model, which writes nothing"),
    "ppo without rewards": ("online", ["task={name: files, path: asked.jsonl}", "rewards=[]"], None, "rewards: none given"),
    "ppo with gold alone": ("online", ["rewards=[{path: 'calm.py:calm', gold: true}]"], None, "at least one that is added up"),
    "collecting without rewards": ("collect", [], collecting, "rewards: none given"),
    "a language model as reward": ("online", [LEARNED % "model"], None, "it is no reward model"),
    "a reward that is not there": ("online", [LEARNED % "runs/none/final"], None, "no such folder"),
    "a language model as critic": ("online", ["policy.critic=model"], None, "it is no reward model"),
    "a misspelt critic": ("online", ["policy.critic=seperate"], None, "allowed: head, separate, or the folder of a reward model"),
    "examples without gold answers": ("online", ["task={name: files, path: asked.jsonl}", "eval.shots=[2]"], None, "no gold answer"),
    "examples that do not fit": ("online", ["eval.shots=[30]"], None, "ask with fewer eval.shots"),
    "a road: a missing model in a later stage": (
        "road",
        ["ppo.model=runs/missing/final"],
        None,
        "stage ppo: model 'runs/missing/final': no such folder",
    ),
    "a road: a stage that is not there": (
        "road",
        ["ppo.model=stage:sfy"],
        None,
        "no earlier stage is called 'sfy' (did you mean 'sft'?)",
    ),
    "a road: a later stage": (
        "road",
        ["sft.model=stage:ppo"],
        None,
        "override 'sft.model=stage:ppo': model: no earlier stage is called 'ppo'",
    ),
    "a road: rows as a model": (
        "road",
        ["ppo.model=stage:ranked"],
        None,
        "stage 'ranked' leaves rows, and here it takes a language model",
    ),
    "a road: a model as rows": ("road", ["judge.task.path=stage:sft"], None, "here it takes rows; stages that leave that: ranked"),
    "a road: a language model as reward": ("road", ["ppo." + LEARNED % "'stage:sft'"], None, "here it takes a reward model"),
    "a road: collects and trains": ("road", ["ranked.train={steps: 1}"], None, "given beside collect"),
    "a road: a misspelt key": ("bad", [], misspelt, "bad.yaml:15: train.num_response: unknown key (did you mean 'num_responses'?)"),
    "a road: rows of another kind in a later stage": ("road", ["judge.task.path=answers.jsonl"], None, "stage judge: "),
    "a road: a stage called as a section": ("road", ["stages.0.name=train"], None, "not that of a section"),
    "a road: stages without names": ("road", ["stages=[{task: arithmetic}]"], None, "each a mapping with a `name`"),
    "a road: a lens of no stage": ("road", ["lens={task: cat_lover, text: [sfft]}"], None, "no stage is called sfft"),
    "a road: a misspelt stage": ("road", ["pppo.train.steps=1"], None, "pppo: unknown key"),
}


@pytest.mark.parametrize("case", BAD)
def test_it_is_told_before_anything_is_trained(case: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, overrides, prepare, told = BAD[case]
    if prepare is not None:
        prepare(desk)
    assert ikusei("train", f"{recipe}.yaml", *overrides) == 2
    assert told in capsys.readouterr().err
    assert not (desk / "runs").exists()


def test_nothing_collected_is_a_failure_that_can_be_mended(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "calm.py").write_text("def calm(prompt, response, **columns):\n    return 1.0\n")
    assert ikusei("train", "road.yaml", "--folder", "run") == 1
    told = capsys.readouterr().out.replace("\n", " ")
    assert "no row was collected" in told and "what 1-sft, 2-ranked did is kept" in told and "--resume run" in told
    assert read_json(desk / "run" / "summary.json")["status"] == "failed" and not (desk / "run" / "3-judge").exists()


def test_a_road_from_end_to_end(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Overrides for one stage, for all of them, and for the road; what a stage left is what the next one takes; it is not begun twice."""
    assert ikusei("train", "road.yaml", "sft.train.steps=2", "train.lr=1e-4", "model=judge/../model", "--folder", "run", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == "finished" and summary["steps"] == 2 + 2 + 1 + 1
    recipes = [(desk / "run" / stage / "recipe.yaml").read_text() for stage in ("1-sft", "2-ranked", "3-judge", "4-ppo")]
    assert [text.count("lr: 0.0001") for text in recipes] == [1, 0, 1, 1]
    assert "1-sft/final" in recipes[1] and "2-ranked/data.jsonl" in recipes[2] and "3-judge/final" in recipes[3]
    left, last = (desk / "run" / place / "model.safetensors" for place in ("final", "4-ppo/final"))
    assert left.read_bytes() == last.read_bytes()
    rows = [json.loads(line) for line in (desk / "run" / "2-ranked" / "data.jsonl").read_text().splitlines()]
    assert rows and all(len(row["responses"]) == len(row["ranking"]) == len(row["rewards"]) for row in rows)
    assert ikusei("train", "--resume", "run") == 2
    assert "has finished" in capsys.readouterr().err


def test_a_road_gained_from_the_first_measurement_of_answers_to_the_last() -> None:
    """Stages that measured losses or nothing tell neither; counts add up over all."""
    counted = {"steps": 2, "tokens_sampled": 30, "tokens_trained": 7}
    measured = [
        {"before": {"loss": 3}, "after": {"loss": 2}},
        {"before": {"reward": 0.1}, "after": {"reward": 0.2}},
        {},
        {"before": {"reward": 0.3}, "after": {"reward": 0.5}},
        {"after": {"loss": 1}},
    ]
    found = summary_of([{**counted, "eval": each} for each in measured], "paused")
    assert found["eval"] == {"before": {"reward": 0.1}, "after": {"reward": 0.5}}
    assert (found["status"], found["steps"], found["tokens_sampled"], found["tokens_trained"]) == ("paused", 10, 150, 35)
    assert summary_of([{**counted, "eval": {}}], "failed")["eval"] == {}


def test_a_kill_between_folder_and_run_is_no_obstacle(desk: Path) -> None:
    """A stage's folder without its run.json was left by a kill, and so is none."""
    alone = "stages=[{name: sft, task: {name: files, path: answers.jsonl}, algorithm: lm, train: {steps: 1}}]"
    assert ikusei("train", "road.yaml", alone, "--folder", "run") == 0
    about = read_json(desk / "run" / "run.json")
    (desk / "run" / "run.json").write_text(json.dumps({**about, "status": "running"}))
    (desk / "run" / "1-sft" / "run.json").unlink()
    assert ikusei("train", "--resume", "run") == 0
    assert read_json(desk / "run" / "1-sft" / "run.json")["status"] == "finished"


def test_filtered_pairs_with_a_stored_reference(desk: Path) -> None:
    """The filter takes rows that so few steps would not take in order; the reference was asked of all of them."""
    (desk / "half.py").write_text("def half(prompt, response, **columns):\n    return float(response in ' 1 2 3 5' and response != '')\n")
    more = ["train.filtered=true", "rewards=['half.py:half']", "train.examples_per_step=1", "seed=4", "task.test_share=0.0"]
    assert ikusei("train", "pairs.yaml", *more, "eval.num_prompts=0", "--folder", "run") == 0
    losses = [json.loads(line) for line in (desk / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["pairs/left"] for row in losses] == [4.0, 4.0]


@pytest.mark.parametrize(
    ("recipe", "overrides", "told"),
    [
        ("pairs", [], ["of preferences (prompt, chosen, rejected)", "<|assistant|> ", "<|assistant|>no "]),
        ("pairs", ["task.path=ranks.jsonl", "algorithm=bradley_terry"], ["of rankings (prompt, responses, ranking)", "rewards equal"]),
        ("pairs", ["task.path=labels.jsonl", "algorithm=kto"], ["of judged answers (prompt, completion, label)"]),
        ("online", [LEARNED % "judge"], ["learned ", "gold answers earn"]),
        ("road", [], ["1 of 4: sft", "stage 3", "task.path from ranked", "rewards.0.settings.model from judge"]),
    ],
)
def test_check(recipe: str, overrides: list[str], told: list[str], desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ikusei("check", f"{recipe}.yaml", "task.test_share=0.0" if recipe == "pairs" else "seed=0", *overrides) == 0
    said = capsys.readouterr().out
    assert all(each in said for each in (*told, "memory", "ready to train"))
    assert not (desk / "runs").exists()


def test_check_of_a_recipe_that_collects(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in ONLINE.splitlines() if not line.startswith(("algorithm", "train"))]
    (desk / "collect.yaml").write_text("\n".join([*lines, "collect: {kind: pairs, num_prompts: 4}"]))
    assert ikusei("check", "collect.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] and "groups of 8 have answers of different worth" in found["facts"]["rewards"] and len(found["answers"]) == 6


def test_check_scores_the_tokens_of_both_answers(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ikusei("check", "pairs.yaml", "--json") == 0
    chosen, rejected = json.loads(capsys.readouterr().out)["tokens"]
    for row in (chosen, rejected):
        assert [token for token, on in row if on][-1] == "<|end|>" and [on for _, on in row] == sorted(on for _, on in row)
    assert [token for token, on in chosen if not on] == [token for token, on in rejected if not on]


@pytest.mark.parametrize(
    ("rows", "algorithm"), [("pairs", "dpo"), ("ranks", "bradley_terry"), ("labels", "kto"), ("answers", "lm")]
)  # fmt: skip
def test_new_picks_by_the_rows_and_runs_as_written(rows: str, algorithm: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ikusei("new", "mine.yaml", "--data", f"{rows}.jsonl", "--model", "model") == 0
    assert f"({algorithm})" in capsys.readouterr().out
    assert f"name: {algorithm}" in (desk / "mine.yaml").read_text()
    assert ikusei("check", "mine.yaml") == 0
    assert ikusei("train", "mine.yaml", "train.steps=1", "train.normalise.num_prompts=1" if rows == "ranks" else "seed=0") == 0


def test_new_asks_for_something_that_judges(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ikusei("new", "mine.yaml", "--data", "asked.jsonl", "--model", "model") == 2
    assert "nothing says what a good answer is" in capsys.readouterr().err and not (desk / "mine.yaml").exists()
    assert ikusei("new", "mine.yaml", "--data", "pairs.jsonl", "--model", "model", "--reward", "calm.py:calm") == 0
    assert "name: grpo" in (desk / "mine.yaml").read_text()
