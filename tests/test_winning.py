"""Win rates: by hand, with ties, positions and lengths; by numbers, by a judge of pairs, by a reward model and by people's votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ikusei.backends.export import export
from ikusei.cli.main import app
from ikusei.evaluation.judges import contest, prompt_of, read_judge
from ikusei.intervals import mean_interval
from ikusei.loops.evaluate import EvalSettings, rows_of
from ikusei.models.learned_reward import LearnedReward, RewardEnsemble
from ikusei.models.load import load_tokenizer
from ikusei.run.folder import Run
from ikusei.run.win_rate import PairVerdict, of_numbers, of_votes, win_rate
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group, Prompt, Response
from laws import worlds
from test_judges import write_judge

ONE = {"1+1=": ["2", "2 2"], "2+3=": ["5", "6"], "4+4=": ["9", "10"]}
OTHER = {"1+1=": ["2", "3"], "2+3=": ["7", "8"], "4+4=": ["8", "9"]}
GOLD = {"1+1=": "2", "2+3=": "5", "4+4=": "8"}


def test_by_hand() -> None:
    """w = (1 + 1/2 + 0 + 0) / 4 = 3/8 on one prompt, 1 on the other: 11/16, and not the 1/2 that the five verdicts average to."""
    verdicts = [*of_numbers("p", [(3.0, 10), (1.0, 11)], [(1.0, 11), (4.0, 30)]), PairVerdict("q", 1.0, None, (100, 9))]
    assert [each.won for each in verdicts] == [1, 0, 0.5, 0, 1]
    found = win_rate("a", "b", verdicts, failed=2)
    assert found.rate == mean_interval([3 / 8, 1.0]) and found.rate.value == 11 / 16
    assert (found.wins, found.ties, found.losses) == (5 / 8, 1 / 8, 1 / 4)
    assert (found.num_prompts, found.num_verdicts, found.failed) == (2, 5, 2)
    assert found.similar == mean_interval([0.75]) and found.num_similar == 1, "10 and 11 tokens against 11; 30 and 9 are far from them"
    assert found.to_first is None


def test_ties_are_as_wide_as_they_are_said_to_be() -> None:
    one, other = [(0.5, 1)], [(0.4, 1), (0.39, 1), (0.7, 1)]
    assert [each.won for each in of_numbers("p", one, other, tie=0.1)] == [0.5, 1, 0]
    assert [each.won for each in of_numbers("p", one, other)] == [1, 1, 0]


def test_a_liking_for_a_place_cancels_and_is_told() -> None:
    """Shown first, the one wins 4 of 4 on p, shown second 1 of 4: 5/8, with 7/8 to the first. On q it never wins: 0 and 1/2."""
    p = [PairVerdict("p", 1.0, True)] * 4 + [PairVerdict("p", won, False) for won in (1.0, 0.0, 0.0, 0.0)]
    q = [PairVerdict("q", 0.0, True), PairVerdict("q", 0.0, False)]
    found = win_rate("a", "b", [*p, *q])
    assert found.rate.value == (5 / 8 + 0) / 2
    assert found.to_first == mean_interval([7 / 8, 1 / 2])


@pytest.mark.parametrize("verdicts", [[], [PairVerdict("p", 1.0), PairVerdict("p", 1.5)]])
def test_what_is_no_verdict_is_refused(verdicts: list[PairVerdict]) -> None:
    with pytest.raises(ValueError, match=r"runs/a and runs/b: . verdicts.*allowed: one or more, from 0 \(worse\) to 1"):
        win_rate("runs/a", "runs/b", verdicts)


def test_votes(tmp_path: Path) -> None:
    """On p the one wins when shown first and ties when shown second: 3/4, and 3/4 to the first. On q it loses, shown second. A third model
    is another matter."""
    file = tmp_path / "votes.jsonl"
    rows = [("p", "one", "two", "a"), ("p", "two/", "one", "tie"), ("q", "two", "one", "a"), ("q", "one", "three", "a")]
    file.write_text("".join(json.dumps({"prompt": p, "models": [a, b], "vote": vote}) + "\n" for p, a, b, vote in rows), "utf-8")
    found = contest("one", "two", str(file))
    assert found.rate == mean_interval([0.75, 0.0]) and found.to_first == mean_interval([0.75, 1.0])
    assert contest("two", "one/", str(file)).rate.value == 1 - found.rate.value
    with pytest.raises(ValueError, match="no vote on one and four; votes are on: one and three, one and two; name the models"):
        of_votes(file, "one", "four")


@pytest.mark.parametrize(
    "row", ['{"prompt": "p", "models": ["a", "b"], "vote": "c"}', '{"prompt": "p", "models": ["a", "a"], "vote": "a"}', "{", "3"]
)
def test_what_is_no_vote_is_told_with_its_line(tmp_path: Path, row: str) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text(f"\n{row}\n", "utf-8")
    with pytest.raises(ValueError, match=r'votes.jsonl:2: .*a row is \{"prompt"'):
        of_votes(file, "a", "b")


def run(folder: Path, answers: dict[str, list[str]]) -> str:
    """A run folder with an evaluation's samples, as the evaluation writes them."""
    made = Run.create(folder.parent, "r", "", {"sampling": {"temperature": 1.0}, "eval": {"num_samples": 2}}, {}, folder)
    rows: list[dict[str, Any]] = []
    for prompt, texts in answers.items():
        asked = Prompt(prompt, (0,), prompt, {"answer": GOLD[prompt]}, prompt)
        group = Group(asked, tuple(Response((1,) * len(text), (True,) * len(text), text, stop="eos") for text in texts))
        rows += rows_of(group, [float(text == GOLD[prompt]) for text in texts], EvalSettings())
    made.write_eval("after", 7, {"name": "after", "step": 7, "num_samples": 2}, rows)
    return str(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    return run(folder / "one", ONE), run(folder / "two", OTHER)


def test_the_command(two: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By exact match 1+1= is [1, 0] against [1, 0]: 1/2. 2+3= is [1, 0] against [0, 0]: 3/4. 4+4= is [0, 0] against [1, 0]: 1/4."""
    assert app(["compare", *two, "--judge", "exact", "--json"], result_action="return_value") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rate"]["value"] == 0.5 and (found["wins"], found["ties"], found["losses"]) == pytest.approx((1 / 4, 1 / 2, 1 / 4))
    recipe = tmp_path / "recipe.yaml"
    gold = "[{path: exact, gold: true}, {path: think_format}]"
    recipe.write_text(f"task: arithmetic\nalgorithm: grpo\nrewards: {gold}\n", "utf-8")
    assert contest(*two, str(recipe)).rate.value == 0.5 and [spec.path for spec in read_judge(str(recipe))] == ["exact"]
    longer = tmp_path / "longer.py"
    longer.write_text("def score(prompt, response):\n    return len(response)\n", "utf-8")
    assert app(["compare", *two, "--judge", f"{longer}:score"], result_action="return_value") == 0
    said = capsys.readouterr().out
    assert "win rate" in said and "0.667" in said, "'2 2' is longer than both, '10' than both: 3/4, 1/2 and 3/4"
    assert "12 verdicts on 3 prompts; 0 failed" in said


def test_a_judge_of_pairs_is_asked_in_both_orders(two: tuple[str, str], tmp_path: Path) -> None:
    """It takes whatever is first, unless the other is longer by two characters. The pairs: '2' '2', '2 2' '3'; '5' '7', '6' '8'; '9' '8',
    '10' '9'. Only '2 2' against '3' is more than the place: 3/4, and 1/2 for the rest."""
    asked = tmp_path / "asked.txt"
    judge = tmp_path / "judge.py"
    judge.write_text(
        "def prefer(prompt, response, other, answer):\n"
        f"    open({str(asked)!r}, 'a').write(response + '|' + other + '|' + answer + '\\n')\n"
        "    return float(len(other) < len(response) + 2)\n",
        "utf-8",
    )
    found = contest(*two, f"{judge}:prefer", in_pairs=True)
    assert found.rate.value == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    assert found.to_first is not None and found.to_first.value == pytest.approx((0.75 + 1 + 1) / 3)
    assert found.num_verdicts == 12
    lines = [tuple(line.split("|")) for line in asked.read_text("utf-8").splitlines()]
    assert lines[2:4] in ([("2 2", "3", "2"), ("3", "2 2", "2")], [("3", "2 2", "2"), ("2 2", "3", "2")])
    pairs = [pair for prompt in ONE for pair in zip(ONE[prompt], OTHER[prompt], strict=True)][1:]
    assert sum(line[:2] in pairs for line in lines[2::2]) in (2, 3), "of six pairs three begin with the one's answer; '2' '2' hides it"
    with pytest.raises(ValueError, match="reward 'longer' failed on 12 of 12"):
        judge.with_name("bad.py").write_text("def longer(prompt, response, another):\n    return 1.0\n", "utf-8")
        contest(*two, f"{judge.with_name('bad.py')}:longer", in_pairs=True)


def test_a_reward_model_judges(two: tuple[str, str], tmp_path: Path) -> None:
    policy = worlds.make_talker()
    export(policy.causal.model, policy.tokenizer, tmp_path / "model")
    write_judge(tmp_path, "judge", policy.tokenizer, 0, bias=0.5)
    tokenizer = load_tokenizer(str(tmp_path / "judge"))
    judge = RewardEnsemble("judge", LearnedReward((str(tmp_path / "judge"),)), tokenizer)
    wins = []
    for prompt in ONE:
        asked = render(tokenizer, Example(prompt))
        group = Group(asked, tuple(continuation(tokenizer, asked, text) for text in (*ONE[prompt], *OTHER[prompt])))
        a, b, c, d = (parts["judge"].value or 0.0 for parts in judge([group])[0])
        wins.append(sum(0.5 * (x == y) + (x > y) for x in (a, b) for y in (c, d)) / 4)
    assert contest(*two, str(tmp_path / "judge")).rate == mean_interval(wins)
    with pytest.raises(ValueError, match="a reward model says a number for each answer and compares no two; leave out --in-pairs"):
        contest(*two, str(tmp_path / "judge"), in_pairs=True)


def test_conversations_are_asked_again_as_they_were() -> None:
    talk = ({"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2="})
    asked = Prompt("t", (0,), "user: 1+1=", {"answer": "4", "level": 3}, tuple(talk))  # pyright: ignore[reportArgumentType]
    (row,) = rows_of(Group(asked, (Response((1,), (True,), "4", stop="length"),)), [1.0], EvalSettings())
    again = prompt_of(row)
    assert again.asked == talk and again.columns == {"answer": "4", "level": 3} and row["stop"] == "length"
