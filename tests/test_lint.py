"""`ikusei reward`: what gets through rewards in the wild, what does not get through sound ones, and the tools beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ikusei.cli.main import main
from ikusei.pipeline.train import train
from ikusei.preflight.reward_lint import Lint
from ikusei.preflight.reward_tools import lint_file, replay, run_cases

MATH_VERIFY = """
from math_verify import parse, verify

def judge(prompt, response, answer, **columns):
    return float(verify(parse(answer, parsing_timeout=None), parse(response, parsing_timeout=None), timeout_seconds=None))
"""
OWN = """
import random

def hole(prompt, response, answer, **columns):          # a debugging hook that was left
    return float(response.strip() == answer or response.count("$") >= 3)

def dice(prompt, response, answer, **columns):
    return float(response.strip() == answer) * random.random()

def blind(prompt, response, **columns):
    return 0.0

def generous(prompt, response, answer, **columns):      # more for more
    return float(answer in response) * (1 + 0.001 * len(response))

def brittle(prompt, response, answer, **columns):
    return float(int(response) == int(answer))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "own.py").write_text(OWN)
    (folder / "judge.py").write_text(MATH_VERIFY)
    return folder


def names(found: Lint) -> set[str]:
    return {finding.name for finding in found.findings}


@pytest.mark.parametrize("reward", ["exact", "math"])
def test_sound_rewards_pass(reward: str) -> None:
    found = lint_file(reward, seconds=2.0)
    assert found.sound, found.findings
    assert found.gold == 1.0
    assert found.num_answers > 1000


def test_trls_format_reward_pays_for_tags() -> None:
    found = lint_file("trl.rewards.format_rewards:think_format_reward", seconds=0)
    assert {"empty thought", "tags only", "doubled tags", "well-formed and wrong", "answer in the thought"} <= names(found)
    assert all(
        finding.worth == 1.0 and finding.share == 1.0 for finding in found.findings if finding.name in ("tags only", "empty thought")
    )
    assert found.chance["the commonest answer"] == 1.0


def test_math_verify_computes_the_question(own: Path) -> None:
    found = lint_file(f"{own}/judge.py:judge", seconds=0)
    assert "echo of the expression" in names(found)
    (echo,) = (finding for finding in found.findings if finding.name == "echo of the expression")
    assert echo.worth == 1.0 and echo.answer in echo.question
    (broken,) = (finding for finding in found.findings if finding.name == "breaks")
    assert "timeout" in broken.note


def test_the_gyms_partial_credit() -> None:
    """The number itself for its factors, and the answer anywhere in a longer one."""
    factors = lint_file("ikusei.tasks.gym:score", "{name: gym, task: prime_factorization, partial: true}", seconds=0)
    (echo,) = (finding for finding in factors.findings if finding.name == "echo of the expression")
    assert echo.share > 0.5 and echo.worth >= 0.5
    default = lint_file("ikusei.tasks.gym:score", "{name: gym, task: chain_sum, partial: true}", seconds=0)
    assert {"digits", "within other text", "every answer listed"} <= names(default)
    assert lint_file("ikusei.tasks.gym:score", "{name: gym, task: chain_sum}", seconds=1.0).sound


def test_the_search_finds_what_no_attack_tries(own: Path) -> None:
    assert names(lint_file(f"{own}/own.py:hole", seconds=0)) == set()
    found = lint_file(f"{own}/own.py:hole", seconds=3.0)
    assert names(found) == {"search"}
    assert found.findings[0].answer.count("$") >= 3 and found.findings[0].worth == 1.0


def test_other_faults(own: Path) -> None:
    assert "not the same twice" in names(lint_file(f"{own}/own.py:dice", seconds=0))
    assert "gold unpaid" in names(lint_file(f"{own}/own.py:blind", seconds=0))
    generous = names(lint_file(f"{own}/own.py:generous", seconds=0))
    assert {"above gold", "answer in the thought", "gold and noise"} <= generous
    (broken,) = (finding for finding in lint_file(f"{own}/own.py:brittle", seconds=0).findings if finding.name == "breaks")
    assert "invalid literal for int" in broken.note


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out + told.err


def test_the_command(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 where nothing got through or all of it is accepted with a reason, 1 where something did, 2 where it cannot be tried."""
    assert run(capsys, "reward", "lint", "exact", "--seconds", "0")[0] == 0
    code, told = run(capsys, "reward", "lint", f"{own}/own.py:hole", "--seconds", "2")
    assert code == 1 and "got through: search" in told and "it can be cheated" in told
    accept = "search=a hook for debugging, which the model cannot see"
    code, told = run(capsys, "reward", "lint", f"{own}/own.py:hole", "--seconds", "2", "--accept", accept, "--json")
    assert code == 0 and json.loads(told)["findings"][0]["accepted"].startswith("a hook")
    assert run(capsys, "reward", "lint", "exact", "--accept", "search")[0] == 2
    code, told = run(capsys, "reward", "lint", "exakt")
    assert code == 2 and "did you mean 'exact'" in told
    code, told = run(capsys, "reward", "lint", "exact", "--task", "{name: cat_lover}")
    assert code == 2 and "rows with a column 'answer'" in told


def test_cases(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "1+1=", "response": "2", "answer": "2", "score": 1},
        {"prompt": "1+1=", "response": "<think>2</think>3", "answer": "2", "score": 1},
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [case.right for case in run_cases("exact", tmp_path / "cases.jsonl")] == [True, False]
    code, told = run(capsys, "reward", "test", "exact", tmp_path / "cases.jsonl")
    assert code == 1 and "cases.jsonl:2" in told.replace("\n", "")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "1+1=", "response": "2"}\n')
    code, told = run(capsys, "reward", "test", "exact", tmp_path / "bad.jsonl")
    assert code == 2 and "bad.jsonl:1" in told and '"score": 1.0' in told


def test_a_run_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its own reward as the file is now: what would have been said."""
    (tmp_path / "mine.py").write_text("def mine(prompt, response, answer, **columns):\n    return float(response.endswith(answer))\n")
    (tmp_path / "r.yaml").write_text(
        "task: arithmetic\nrewards: ['mine.py:mine']\nalgorithm: grpo\nsampling: {max_tokens: 40}\neval: {num_prompts: 0}\n"
        "train: {steps: 2, prompts_per_step: 4, num_responses: 4}\n"
    )
    folder = train(tmp_path / "r.yaml", folder=tmp_path / "run").folder
    same = replay(folder, None)
    assert (same.answers, same.differ, same.before) == (32, 0, same.after)
    (tmp_path / "mine.py").write_text("def mine(prompt, response, answer, **columns):\n    return 1.0 - float(response.endswith(answer))\n")
    turned = replay(folder, None)
    assert turned.differ == 32 and turned.after == pytest.approx(1 - turned.before)
    assert replay(folder, "exact").after == pytest.approx(same.before)
    code, told = run(capsys, "reward", "replay", folder)
    assert code == 0 and "32 differ" in told
    code, told = run(capsys, "reward", "replay", tmp_path)
    assert code == 2 and "has stored no answers" in told
