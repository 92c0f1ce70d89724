"""Will it learn? What is measured of the starting model, and the verdict for each kind of recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ikusei.intervals import Interval
from ikusei.loops.online import OnlineSettings
from ikusei.preflight.check import Check, check_file
from ikusei.preflight.readiness import MANY, Form, Headroom, Overlap, Passing, Readiness, readiness_verdict
from ikusei.types import Group, Prompt, Response

RECIPE = "task: {task}\nrewards: [exact]\nalgorithm: grpo\nsampling: {{max_tokens: {tokens}}}\ntrain: {{num_responses: 8}}\n"
ARITHMETIC = "{name: arithmetic, digits: 3, terms: 2}"


def found(folder: Path, task: str = ARITHMETIC, tokens: int = 64, *overrides: str) -> Check:
    (folder / "r.yaml").write_text(RECIPE.format(task=task, tokens=tokens))
    return check_file(folder / "r.yaml", overrides)


def asked(folder: Path, rows: list[dict[str, str]]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "{name: files, path: rows.jsonl}"


def test_a_half_grown_model_is_ready(tmp_path: Path) -> None:
    """The seedling's sums: a quarter right, nearly all of them in 64 tries, and most groups teach."""
    told = found(tmp_path)
    assert told.verdict is not None and told.verdict.name == "ready"
    assert "100%" in told.facts["passes"] and "groups of 8 have reward variance (a learning signal)" in told.facts["signal"]
    assert "one such group takes" in told.facts["signal"]
    assert "the commonest answer passes on" in told.facts["chance"]


def test_a_task_that_it_never_solves_is_too_hard(tmp_path: Path) -> None:
    told = found(tmp_path, "{name: arithmetic, digits: 4, terms: 2}").verdict
    assert told is not None and told.name == "too hard"
    assert "teach the task first" in told.next


def test_answers_that_are_cut_off_are_badly_formed(tmp_path: Path) -> None:
    told = found(tmp_path, tokens=2).verdict
    assert told is not None and told.name == "badly formed"
    assert "cut off at max_tokens" in told.why and "raise sampling.max_tokens" in told.next


def test_what_guessing_earns_verifies_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+{n}=", "answer": "yes" if n % 4 else "no"} for n in range(100, 180)]
    told = found(tmp_path, asked(tmp_path, rows))
    assert told.verdict is not None and told.verdict.name == "nothing to verify"
    assert "the commonest answer alone passes on" in told.verdict.why


def test_leaks_and_doubles_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n % 30 + 100}+200=", "answer": str(n % 30 + 300)} for n in range(60)]
    (tmp_path / "held.jsonl").write_text(json.dumps({"prompt": "999+1=", "answer": "1000"}) + "\n")
    task = asked(tmp_path, rows).replace("}", ", test_path: held.jsonl}")
    assert found(tmp_path, task).facts["prompts"].startswith("30 of 60 occur twice; 0 held-out")


def test_an_easy_task(tmp_path: Path) -> None:
    (tmp_path / "kind.py").write_text("def kind(prompt, response, **columns):\n    return float(len(response) > 0)\n")
    told = found(tmp_path, ARITHMETIC, 64, "rewards=[{path: kind.py:kind}]").verdict
    assert told is not None and told.name in ("too easy", "nothing to verify")


def measured(rate: float, signal: float, wide: float = 0.5, chance: float = 0.0, formed: float = 1.0, size: int = 8) -> Readiness:
    at = lambda value: Interval(value, max(0.0, value - 0.05), min(1.0, value + 0.05))  # noqa: E731
    rooms = {"pass@1": at(rate), f"pass@{MANY}": at(wide)}
    groups = (Group(Prompt("p", (1,), "p"), (Response((1,), (True,), "a"),)),)
    passing, form = Passing(at(rate), at(signal), 0.5, size), Form(truncated=0.0, complete=formed)
    return Readiness(passing, form, Headroom(rooms, 16), {"the question": chance}, Overlap(0, 0), groups)


@pytest.mark.parametrize(
    ("one", "name", "said"),
    [
        (measured(0.2, 0.8), "ready", "12.8 of 16 groups a step have reward variance"),
        (measured(0.01, 0.13), "ready", "2.1 of 16"),
        (measured(0.01, 0.12, wide=0.1), "too hard", "teach the task first"),
        (measured(0.01, 0.05, wide=0.4), "too hard", "num_responses: 64"),
        (measured(0.96, 0.3), "too easy", "96%"),
        (measured(0.92, 0.1), "too easy", "harder prompts"),
        (measured(0.92, 0.2), "ready", ""),
        (measured(0.55, 0.9, chance=0.6), "nothing to verify", "60%"),
        (measured(0.9, 0.5, chance=0.6), "ready", ""),
        (measured(0.3, 0.8, formed=0.4), "badly formed", "40%"),
    ],
)
def test_the_rule(one: Readiness, name: str, said: str) -> None:
    told = readiness_verdict(one, OnlineSettings(prompts_per_step=16))
    assert told.name == name
    assert said in f"{told.why} {told.next}"


def test_samples_for_a_group_that_teaches() -> None:
    assert measured(0.1, 0.25).passing.answers_per_useful_group == 32
    assert replace(measured(0.1, 0.25).passing, signal=Interval(0.0, 0.0, 0.1)).answers_per_useful_group is None
