"""Law 6: kill -9 anywhere, resume, finish: parameters, metrics and sampled tokens are bit-equal to the uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_runs
from safetensors.torch import load_file

from ikusei.run.files import read_json
from ikusei.run.folder import Run, checkpoints

TOO_LONG_S = 120
STEPS = 24


def wait_for_steps(process: subprocess.Popen[str], folder: Path, steps: int) -> None:
    """Until so many steps stand in the log and a checkpoint exists."""
    end = time.monotonic() + TOO_LONG_S
    while len(tiny_runs.metrics(folder)) < steps or not checkpoints(folder):
        assert process.poll() is None, f"ended before step {steps}: {process.communicate()[0]}"
        assert time.monotonic() < end, f"step {steps} did not come"
        time.sleep(0.002)


def interrupt(process: subprocess.Popen[str], how: int, moment_s: float) -> str:
    """A little later, at any point of a step, end it. Ctrl-C goes to the whole process group, as a terminal sends it."""
    time.sleep(moment_s)
    if how == signal.SIGINT:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    output, _ = process.communicate(timeout=TOO_LONG_S)
    return output


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, list[str]]]:
    """(the uninterrupted run, the one that was killed twice and interrupted once, what happened to it)."""
    place = tmp_path_factory.mktemp("resume")
    recipe = tiny_runs.write_recipe(place)
    folder, story = place / "interrupted", []
    chance = random.Random()  # another moment each time: the law says anywhere
    process = tiny_runs.start(str(recipe), "--folder", str(folder))
    try:
        for how, steps in ((signal.SIGKILL, chance.randint(2, 5)), (signal.SIGKILL, chance.randint(7, 10)), (signal.SIGINT, 13)):
            wait_for_steps(process, folder, steps)
            moment_s = chance.random() * 0.15
            output = interrupt(process, how, moment_s)
            found = Run(folder, 0.0).latest_checkpoint()
            reached = len(tiny_runs.metrics(folder))
            when = f"{signal.Signals(how).name} {moment_s:.3f} s after step {steps}, at {reached}"
            story.append(f"{when}: exit code {process.returncode} {output[-300:]}")
            assert process.returncode == (130 if how == signal.SIGINT else -9), story
            assert found is not None, story
            assert found[0] == reached if how == signal.SIGINT else reached - 2 <= found[0] <= reached + 1, story
            if how == signal.SIGKILL:
                process = tiny_runs.start("--resume", str(folder))
        assert tiny_runs.resume_here(folder).exit_code == 0
        whole = tiny_runs.run_here(recipe, place / "whole")
        assert whole.exit_code == 0
        yield whole.folder, folder, story
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_parameters(interrupted: tuple[Path, Path, list[str]]) -> None:
    whole, folder, story = interrupted
    mine, theirs = (load_file(path / "final" / "model.safetensors") for path in (folder, whole))
    start = load_file(whole.parent / "model" / "model.safetensors")
    assert mine.keys() == theirs.keys() == start.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine), story
    assert any((mine[name] != start[name]).any() for name in mine)


def test_metrics(interrupted: tuple[Path, Path, list[str]]) -> None:
    whole, folder, story = interrupted
    mine, theirs = tiny_runs.metrics(folder), tiny_runs.metrics(whole)
    assert [row["step"] for row in theirs] == list(range(1, STEPS + 1))
    assert mine == theirs, story
    assert {"loss", "kl", "grad_norm", "reward", "sampling/logp_gap", "tokens_sampled"} <= theirs[0].keys()


def test_responses(interrupted: tuple[Path, Path, list[str]]) -> None:
    whole, folder, story = interrupted
    mine, theirs = tiny_runs.responses(folder), tiny_runs.responses(whole)
    assert list(theirs) == [f"step-{step:06d}.parquet" for step in range(1, STEPS + 1)]
    assert mine == theirs, story


def test_evaluations(interrupted: tuple[Path, Path, list[str]]) -> None:
    whole, folder, story = interrupted
    assert list(tiny_runs.evaluations(whole)) == [f"after@{STEPS}", "before@0", *sorted(f"gold@{step}" for step in range(5, STEPS, 5))]
    assert tiny_runs.evaluations(folder) == tiny_runs.evaluations(whole), story


def test_summary_and_what_is_left(interrupted: tuple[Path, Path, list[str]]) -> None:
    whole, folder, _ = interrupted
    mine, theirs = (read_json(path / "summary.json") for path in (folder, whole))
    for summary in (mine, theirs):
        summary.pop("seconds")
        for figures in summary["eval"].values():
            figures.pop("seconds", None)
    assert mine == theirs
    assert mine["status"] == "finished"
    assert (folder / "report.html").exists()
    assert not [left for left in folder.rglob(".*.tmp")], "something half written was left"


def test_refill_and_failures_were_part_of_it(interrupted: tuple[Path, Path, list[str]]) -> None:
    """What the comparisons above are worth: rounds of refill, failed rewards and groups that were not kept all occurred."""
    whole, _, _ = interrupted
    rows = [row for table in tiny_runs.responses(whole).values() for row in table]
    assert len(rows) > STEPS * 3 * 2
    assert {row["rewards/marks/status"] for row in rows if "rewards/marks/status" in row} >= {"error"}
    assert {row["kept"] for row in rows} == {True, False}
