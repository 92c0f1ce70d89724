"""What the workers make of a recipe's rewards: how they are found and called, what is told when they cannot be, and what they add up to."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikusei.guard import outcomes
from ikusei.guard.outcomes import failure_counts, too_many_failures
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.types import Group, Prompt, Response, RewardResult, Score, Status, Term

PROMPT = Prompt("p", (1, 2), "What is 3*4?", {"answer": "12"})

USER_FILE = '''
import sys
from helper import BONUS


def short(prompt, response, answer):
    """Names one column and takes no others."""
    return float(response == answer) + BONUS


def wants_more(prompt, response, answer, teacher):
    return 1.0


def names(prompt, response, **columns):
    return {"answer": float("answer" in columns), "text": float(prompt.text == "What is 3*4?"), "columns": float(len(columns))}


def trl(prompts, completions, answer, **kwargs):
    print("this must not be seen")
    return [float(prompt == "What is 3*4?" and completion == right) for prompt, completion, right in zip(prompts, completions, answer)]


def trl_chat(completions, **kwargs):
    turns = [(prompt[-1]["role"], completion[0]["role"]) for prompt, completion in zip(kwargs["prompts"], completions)]
    return [float(turn == ("user", "assistant")) + len(completion[0]["content"]) for turn, completion in zip(turns, completions)]


def naps(prompts, completions, **kwargs):
    import time
    time.sleep(0.2)
    return [1.0] * len(completions)


def at_least(length):
    def long_enough(prompt, response):
        return float(len(response) >= length)
    return long_enough


def loaded_torch(prompt, response):
    return "torch" in sys.modules


def question_and_answer(question, answer):
    return 1.0


def sleepy(prompt, response):
    import time
    time.sleep(float(response))
    return 1.0


NUMBER = 3
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user")
    (path / "mine.py").write_text(USER_FILE)
    (path / "helper.py").write_text("BONUS = 0.5\n")
    (path / "broken.py").write_text("import json\n\njson.loads('{')\n")
    (path / "unwritten.py").write_text("def half(prompt, response:\n")
    (path / "leaves.py").write_text("import os\nos._exit(0)\n")
    return path


def group(*texts: str, columns: Mapping[str, Any] = PROMPT.columns) -> Group:
    prompt = Prompt("p", (1, 2), PROMPT.text, columns)
    return Group(prompt, tuple(Response((1,), (True,), text) for text in texts))


def score(specs: Sequence[RewardSpec], *groups: Group, log: Path | None = None) -> list[Group]:
    with RewardWorkers(specs, log=log) as workers:
        return workers.score(groups)


def parts(scored: Group, name: str) -> list[RewardResult]:
    return [response.score.parts[name] for response in scored.responses if response.score is not None]


def totals(scored: Group) -> list[float | None]:
    return [response.score.total for response in scored.responses if response.score is not None]


def test_built_ins_by_their_bare_names() -> None:
    specs = [
        RewardSpec("right", "exact", weight=2.0),
        RewardSpec("number", "math", weight=3.0),
        RewardSpec("format", "think_format", gate=True, settings={"min_think_chars": 2}),
        RewardSpec("length", "length", settings={"max_chars": 100, "soft_chars": 20}),
    ]
    (scored,) = score(specs, group("<think>ab</think>12", "<think>ab</think>12.0", "<think>a</think>12", "<think>ab</think>" + "1" * 73))
    assert totals(scored) == [5.0, 3.0, 0.0, -0.5]


@pytest.mark.parametrize(
    ("function", "texts", "expected"),
    [
        ("short", ["12", "13"], [1.5, 0.5]),
        ("names", ["x"], [4.0]),
        ("trl", ["12", "13", "12"], [1.0, 0.0, 1.0]),
        ("trl_chat", ["12", "1"], [3.0, 2.0]),
        ("loaded_torch", ["x"], [0.0]),
    ],
)
def test_signatures(folder: Path, capfd: pytest.CaptureFixture[str], function: str, texts: list[str], expected: list[float]) -> None:
    columns = {"answer": "12", "messages": ({"role": "user", "content": "?"},)} if function in ("trl_chat", "names") else {"answer": "12"}
    log = folder / f"{function}.log"
    (scored,) = score([RewardSpec("mine", f"{folder / 'mine.py'}:{function}")], group(*texts, columns=columns), log=log)
    assert [part.value for part in parts(scored, "mine")] == expected
    assert capfd.readouterr() == ("", "")
    assert ("this must not be seen" in log.read_text()) == (function == "trl")


def test_the_seconds_of_a_batched_call_are_shared(folder: Path) -> None:
    """Four answers in one call of 0.2 s: 0.05 s each, and together no more than the wall's clock says."""
    with RewardWorkers([RewardSpec("naps", f"{folder / 'mine.py'}:naps")]) as workers:
        began = time.perf_counter()
        (scored,) = workers.score([group("a", "b", "c", "d")])
        taken = time.perf_counter() - began
    seconds = [part.seconds for part in parts(scored, "naps")]
    assert len(set(seconds)) == 1 and 0.2 <= sum(seconds) <= taken


def test_several_numbers_by_name_are_parts_and_their_sum_the_value(folder: Path) -> None:
    (scored,) = score([RewardSpec("mine", f"{folder / 'mine.py'}:names", weight=2.0)], group("x"))
    values = {name: part.value for name, part in scored.responses[0].score.parts.items()} if scored.responses[0].score else {}
    assert values == {"mine": 3.0, "mine/answer": 1.0, "mine/text": 1.0, "mine/columns": 1.0}
    assert totals(scored) == [6.0]


def test_a_missing_column_fails_every_row_and_is_told(folder: Path) -> None:
    scored = score([RewardSpec("mine", f"{folder / 'mine.py'}:wants_more")], group("x", "y"))
    assert failure_counts(scored) == {"reward_errors/mine": 2.0}
    assert "column 'teacher' missing; columns seen: answer" in (too_many_failures(scored) or "")


def test_paths_and_factories(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    specs = [
        RewardSpec("file", "mine.py:short"),
        RewardSpec("module", "mine:short", gold=True),
        RewardSpec("dotted", "ikusei.rewards.exact.exact", gold=True),
        RewardSpec("factory", "mine.py:at_least", gate=True, settings={"length": 2}),
    ]
    (scored,) = score(specs, group("12", "1"))
    assert totals(scored) == [1.5, 0.0]
    assert [[part.value for part in parts(scored, name)] for name in ("module", "dotted")] == [[1.5, 0.5], [1.0, 0.0]]


def test_what_cannot_be_loaded_is_told_at_the_start_all_at_once(folder: Path) -> None:
    expected = {
        "exat": "no built-in reward; allowed: code, exact, length, math, think_format.*did you mean 'exact'",
        "nowhere.py:f": "no such file: .*nowhere.py",
        f"{folder}/mine.py:shirt": "no 'shirt' in .*mine.py; it has: short, wants_more, .*did you mean 'short'",
        f"{folder}/mine.py": "file.py:function",
        f"{folder}/mine.py:question_and_answer": r"takes \(question, answer\); allowed: \(prompt, response, \*\*columns\)",
        f"{folder}/mine.py:NUMBER": "3 is not a callable object",
        f"{folder}/broken.py:f": r"JSONDecodeError: .* \(broken.py:3\)",
        f"{folder}/unwritten.py:half": r"SyntaxError: .* \(unwritten.py:1\)",
        "no_such_package.rewards:f": "ModuleNotFoundError: No module named 'no_such_package'",
        "length": r"missing a required argument: 'max_chars'; allowed: max_chars, soft_chars, of; settings go to a class",
        f"{folder}/leaves.py:f": r"loading it ended the process \(exit code 0\)",
    }
    specs = [RewardSpec(f"reward {number}", path) for number, path in enumerate(expected)]
    with pytest.raises(ValueError) as caught:
        RewardWorkers(specs).start()
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected)
    for line, spec, pattern in zip(lines, specs, expected.values(), strict=True):
        assert line.startswith(f"reward {spec.name!r}: {spec.path}: ")
        assert re.search(pattern, line), line


def test_settings_that_do_not_fit_are_told(folder: Path) -> None:
    specs = [
        RewardSpec("length", "length", settings={"max_characters": 5}),
        RewardSpec("soft", "length", settings={"max_chars": 5, "soft_chars": 6}),
        RewardSpec("plain", f"{folder}/mine.py:short", settings={"length": 2}),
    ]
    with pytest.raises(ValueError) as caught:
        RewardWorkers(specs).start()
    length, soft, plain = str(caught.value).splitlines()
    assert "got settings {'max_characters': 5}" in length
    assert "max_chars=5, soft_chars=6" in soft
    assert "settings go to a class, or to a function that makes a reward" in plain


OK, N_A, FAILED = RewardResult(0.5, "ok"), RewardResult(None, "not_applicable"), RewardResult(None, "timeout")


@pytest.mark.parametrize(
    ("a", "b", "gate", "gold", "value"),
    [
        (OK, RewardResult(3.0, "ok"), RewardResult(0.25, "ok"), OK, (2 * 0.5 - 3.0) * 0.25),
        (OK, N_A, RewardResult(0.25, "ok"), OK, 0.25),
        (OK, RewardResult(3.0, "ok"), N_A, OK, -2.0),
        (N_A, N_A, OK, OK, None),
        (OK, FAILED, OK, OK, None),
        (OK, OK, FAILED, OK, None),
        (OK, RewardResult(3.0, "ok"), OK, FAILED, -1.0),
        (RewardResult(1.5e308, "ok"), OK, OK, OK, None),  # overflows in the sum
    ],
)
def test_total_is_the_gates_times_the_weighted_sum(
    a: RewardResult, b: RewardResult, gate: RewardResult, gold: RewardResult, value: float | None
) -> None:
    specs = [
        RewardSpec("a", "x", weight=2),
        RewardSpec("b", "x", weight=-1),
        RewardSpec("g", "x", gate=True),
        RewardSpec("t", "x", gold=True),
    ]
    assert outcomes.score(specs, {"a": a, "b": b, "g": gate, "t": gold}).total == value


def test_the_terms_of_a_total_are_behind_its_gates_too() -> None:
    """2 (0.5 · 0.25) - 3 · 0.25: what is learned from reward by reward adds up to the total. Gates and gold are no terms."""
    specs = [
        RewardSpec("a", "x", weight=2),
        RewardSpec("g", "x", gate=True),
        RewardSpec("b", "x", weight=-1),
        RewardSpec("t", "x", gold=True),
    ]
    found = outcomes.score(specs, {"a": OK, "g": RewardResult(0.25, "ok"), "b": RewardResult(3.0, "ok"), "t": OK})
    assert dict(found.terms) == {"a": Term(2, 0.125), "b": Term(-1, 0.75)}
    assert found.total == sum(term.weight * term.value for term in found.terms.values()) == -0.5


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": "a/b"}, "without '/'"),
        ({"timeout_s": 0.0}, "timeout_s > 0"),
        ({"weight": math.nan}, "both finite"),
        ({"gate": True, "gold": True}, "a weight, a gate or gold"),
        ({"gate": True, "weight": 2.0}, "a weight, a gate or gold"),
    ],
)
def test_specs_are_checked(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(RewardSpec("a", "exact"), **wrong)


def test_two_rewards_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' twice"):
        RewardWorkers([RewardSpec("a", "exact"), RewardSpec("a", "math")])


def judged_by_two(shaky: Sequence[Status]) -> list[Group]:
    """Groups of one response each: one reward always speaks, the other ends as given."""
    scores = [Score(None, {"sure": OK, "shaky": RewardResult(None, status, note=f"call {n}")}) for n, status in enumerate(shaky)]
    return [
        Group(replace(PROMPT, text=f"question {n}"), (Response((1,), (True,), f"answer {n}", score=each),)) for n, each in enumerate(scores)
    ]


def test_a_reward_fails_by_the_share_of_its_own_calls() -> None:
    """Three of the five calls of one of two rewards are too many, though three of all ten are not."""
    told = too_many_failures(judged_by_two(["ok", "timeout", "error", "ok", "crashed"]))
    assert told is not None and told.startswith("reward 'shaky' failed on 3 of 5 responses (60%; allowed: at most 50%). timeout: call 1. ")
    assert told.endswith("Prompt 'question 1', response 'answer 1'")
    assert too_many_failures(judged_by_two(["ok", "timeout", "error", "ok", "ok"])) is None
    assert too_many_failures(judged_by_two(["ok", "timeout", "error", "not_applicable"])) is None, "half is allowed"
    assert "1 of 4 responses (25%)." in (too_many_failures(judged_by_two(["ok", "ok", "error", "ok"]), limit=0) or "")


def test_a_call_is_stopped_at_its_limit_and_not_long_after(folder: Path) -> None:
    with RewardWorkers([RewardSpec("sleepy", f"{folder / 'mine.py'}:sleepy", timeout_s=2)], num_workers=1) as workers:
        assert totals(workers.score([group("0")])[0]) == [1.0]  # it runs
        start = time.monotonic()
        (part,) = parts(workers.score([group("30")])[0], "sleepy")
        took = time.monotonic() - start
    assert (part.status, part.seconds) == ("timeout", 2.0) and part.note == "sleepy: the call took more than 2 s and was stopped"
    assert 2 <= took < 3.6


def test_a_process_that_ended_between_two_calls_costs_no_response(tmp_path: Path) -> None:
    """Killed while nothing is asked of it, as a system does that wants its memory."""
    (tmp_path / "own.py").write_text("import os\n\n\ndef number(prompt, response):\n    return os.getpid()\n")
    with RewardWorkers([RewardSpec("own", f"{tmp_path}/own.py:number")]) as workers:
        (before,) = totals(workers.score([group("a")])[0])
        assert before is not None
        os.kill(int(before), signal.SIGKILL)
        _ = os.waitid(os.P_PID, int(before), os.WEXITED | os.WNOWAIT)
        (scored,) = workers.score([group("b", "c")])
    assert [each.status for each in parts(scored, "own")] == ["ok", "ok"]
    assert len({before, *totals(scored)}) == 2, "both by the process that took its place"


def test_submitting_does_not_wait_and_closing_ends_a_call(folder: Path) -> None:
    workers = RewardWorkers([RewardSpec("sleepy", f"{folder / 'mine.py'}:sleepy", timeout_s=60)], num_workers=2)
    with pytest.raises(RuntimeError, match="not running"):
        workers.submit(group("0"))
    workers.start()
    start = time.monotonic()
    quick, running, waiting = workers.submit(group("0.3", "0.3")), workers.submit(group("50")), workers.submit(group("50"))
    assert time.monotonic() - start < 0.2
    assert totals(quick.result()) == [1.0, 1.0]
    workers.close()
    assert time.monotonic() - start < 10
    for pending in (running, waiting):
        with pytest.raises(RuntimeError, match="closed before"):
            pending.result()


def test_columns_that_cannot_be_sent_are_told_at_once() -> None:
    with RewardWorkers([RewardSpec("exact", "exact")]) as workers:
        with pytest.raises(ValueError, match=r"answer \(str\), teacher \(generator\) cannot be sent"):
            workers.submit(group("12", columns={"answer": "12", "teacher": (each for each in ())}))
        assert totals(workers.score([group("12")])[0]) == [1.0]


def test_one_worker_scores_thousands_of_responses_a_second() -> None:
    groups = [group(*(f"<think>ab</think>{number}" for number in range(8))) for _ in range(256)]
    with RewardWorkers([RewardSpec("exact", "exact")]) as workers:
        workers.score(groups[:8])
        start = time.monotonic()
        workers.score(groups)
        assert time.monotonic() - start < 2.0  # 0.25 s measured; the bound leaves room for a busy machine
