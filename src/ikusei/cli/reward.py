"""The commands `ikusei reward lint`, `test` and `replay`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ikusei.cli.common import AsJson, out

reward = App(name="reward", help="Try a reward by itself: can it be cheated, does it say what it should?")


@reward.command
def lint_(
    name: str,
    *,
    task: str | None = None,
    data: Path | None = None,
    rows: int = 24,
    seconds: float = 10.0,
    accept: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    as_json: AsJson = False,
) -> int:
    """Attack a reward with answers that it should not pay for. Exit code 1 where something got through.

    Parameters
    ----------
    name
        exact, my_reward.py:function, package.module:function, or a recipe, whose rewards are then attacked together.
    task
        Whose rows are asked: arithmetic, or "{name: gym, task: gcd}" (default: arithmetic).
    data
        A file of rows with the columns prompt and answer, instead of a task.
    rows
        How many rows are attacked.
    seconds
        How long to search beyond the attacks.
    accept
        A finding that is meant so, with the reason: --accept "echo of the question=the question is an answer here"
    """
    from ikusei.preflight import reward_tools

    given = [each.partition("=") for each in accept]
    if any(not sign or not reason.strip() for _, sign, reason in given):
        raise ValueError(f'--accept: got {", ".join(accept)}; allowed: NAME=REASON, for example "digits=the task is about digits"')
    found = reward_tools.lint_file(name, task, data, rows, seconds, {known.strip(): reason.strip() for known, _, reason in given})
    if as_json:
        print(json.dumps(reward_tools.as_json(found), ensure_ascii=False))
    else:
        reward_tools.show(found, out)
    return 0 if found.sound else 1


@reward.command
def test(name: str, cases: Path, *, as_json: AsJson = False) -> int:
    """Run a jsonl file of {"prompt", "response", "score", ...}. Exit code 1 where the reward says another score."""
    from ikusei.preflight import reward_tools

    found = reward_tools.run_cases(name, cases)
    if as_json:
        print(json.dumps([{**asdict(case), "right": case.right} for case in found], ensure_ascii=False))
    else:
        reward_tools.show_cases(found, out)
    return 0 if all(case.right for case in found) else 1


@reward.command
def replay(run: Path, name: str | None = None, *, as_json: AsJson = False) -> int:
    """Score a run's stored answers again: by its own rewards as their files are now, or by another one; and say what would change."""
    from ikusei.preflight import reward_tools

    found = reward_tools.replay(run, name)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
    else:
        reward_tools.show_changed(found, out)
    return 0
