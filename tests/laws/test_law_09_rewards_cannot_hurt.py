"""Law 9: whatever a reward does, it is bounded in time, typed and named, costs its own response alone, and is never a silent 0.
And law 8's share: every response asked for ends with exactly one status from each reward, in the order of asking."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ikusei.guard.outcomes import failure_counts, too_many_failures
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.types import Group, Prompt, Response, RewardResult

LIMIT_S = 1.0
TROUBLE = """
import ctypes, os, subprocess, sys, time


def trouble(prompt, response, **columns):
    kind, _, rest = response.partition(" ")
    if kind == "raise":
        return columns["nothing of this name"]
    if kind == "quit":
        sys.exit("enough")
    if kind == "hang":
        time.sleep(1e6)
    if kind == "spin":  # inside one bytecode, where no signal handler of Python can run
        sum(iter(int, 1))
    if kind == "leave":
        os._exit(int(rest))
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "allocate":
        return float(len(bytearray(2 << 30)))
    if kind == "sleep":
        time.sleep(float(rest))
    if kind == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
        open(rest, "w").write(f"{os.getpid()} {child.pid} ")
        time.sleep(1e6)
    if kind == "empty_columns":
        prompt.columns.clear()
    if kind == "answer":
        return float(columns["answer"])
    if kind == "huge":
        return 10**400
    return {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "text": "1.0", "list": [1.0], "none": None, "true": True,
            "named": {"a": 1.0, "b": 0.5}, "named nan": {"a": 1.0, "b": float("nan")}, "empty": {}}.get(response, 0.25)


def batched(prompts, completions, **columns):
    if "miscount" in completions:
        return [1.0] * (len(completions) - 1)
    if "scalar" in completions:
        return 1.0
    return [trouble(prompt, completion) for prompt, completion in zip(prompts, completions)]
"""
FATES = {  # what the response makes the reward do: the status, and what the note has to say
    "raise": ("error", "KeyError: 'nothing of this name' (trouble.py:8)"),
    "quit": ("error", "SystemExit: enough (trouble.py:10)"),
    "hang": ("timeout", "more than 1 s"),
    "spin": ("timeout", "more than 1 s"),
    "sleep 1.6": ("timeout", "more than 1 s"),  # it would have answered soon after its limit
    "leave 0": ("crashed", "exit code 0"),
    "leave 3": ("crashed", "exit code 3"),
    "segfault": ("crashed", "SIGSEGV"),
    "allocate": ("error", "MemoryError"),
    "huge": ("error", "OverflowError"),
    "nan": ("not_finite", "nan"),
    "inf": ("not_finite", "inf"),
    "-inf": ("not_finite", "-inf"),
    "named nan": ("not_finite", "'b': nan"),
    "text": ("error", "'1.0' (str)"),
    "list": ("error", "[1.0] (list)"),
    "empty": ("error", "{} (dict)"),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "trouble.py"
    path.write_text(TROUBLE)
    return path


@pytest.fixture(scope="module")
def workers(file: Path) -> Iterator[RewardWorkers]:
    with RewardWorkers([RewardSpec("trouble", f"{file}:trouble", timeout_s=LIMIT_S)]) as running:
        yield running


def group(*texts: str) -> Group:
    prompt = Prompt("p", (1,), "What now?", {"answer": "7"})
    return Group(prompt, tuple(Response((1,), (True,), text) for text in texts))


def parts(scored: Group, name: str) -> list[RewardResult]:
    return [response.score.parts[name] for response in scored.responses if response.score is not None]


@pytest.mark.parametrize("text", FATES)
def test_each_trouble_is_typed_named_bounded_and_costs_its_own_response_alone(workers: RewardWorkers, text: str) -> None:
    status, told = FATES[text]
    start = time.monotonic()
    scored = workers.score([group("before", text, "after", "later")])[0]
    assert time.monotonic() - start < LIMIT_S + 5
    assert [part.status for part in parts(scored, "trouble")] == ["ok", status, "ok", "ok"]
    assert [part.value for part in parts(scored, "trouble")] == [0.25, None, 0.25, 0.25]
    assert parts(scored, "trouble")[1].note.startswith("trouble: ")
    assert told in parts(scored, "trouble")[1].note
    assert [response.score.total for response in scored.responses if response.score] == [0.25, None, 0.25, 0.25]
    assert len(scored.without_failures().responses) == 3


def test_several_troubles_in_one_group_each_keep_their_place(workers: RewardWorkers) -> None:
    texts = ["leave 1", "fine", "hang", "segfault", "none", "raise", "true", "leave 0"]
    scored = workers.score([group(*texts)])[0]
    statuses = ["crashed", "ok", "timeout", "crashed", "not_applicable", "error", "ok", "crashed"]
    assert [part.status for part in parts(scored, "trouble")] == statuses
    assert [part.value for part in parts(scored, "trouble")] == [None, 0.25, None, None, None, None, 1.0, None]


@pytest.mark.parametrize(
    ("texts", "status", "told"),
    [
        (["fine", "miscount", "fine"], "error", "returned 2 values for 3 completions"),
        (["fine", "scalar"], "error", "returned 1.0 (float) for 2 completions"),
        (["fine", "raise"], "error", "KeyError: 'nothing of this name' (trouble.py:8)"),
        (["fine", "leave 0", "fine"], "crashed", "exit code 0"),
        (["hang", "fine"], "timeout", "more than 1 s"),
    ],
)
def test_a_failed_batched_call_costs_its_group_and_no_other(file: Path, texts: list[str], status: str, told: str) -> None:
    with RewardWorkers([RewardSpec("whole", f"{file}:batched", timeout_s=LIMIT_S)]) as running:
        first, failed, last = running.score([group("a", "b"), group(*texts), group("nan", "text", "none", "c")])
    assert [part.value for part in parts(first, "whole")] == [0.25, 0.25]
    assert [part.status for part in parts(failed, "whole")] == [status] * len(texts)
    assert all(part.value is None and told in part.note for part in parts(failed, "whole"))
    assert [part.status for part in parts(last, "whole")] == ["not_finite", "error", "not_applicable", "ok"]  # values fail one by one


def test_results_come_in_the_order_of_asking_and_every_response_has_one_status(file: Path) -> None:
    """Two workers, two rewards, and calls whose durations shuffle the order of finishing."""
    specs = [RewardSpec("one", f"{file}:trouble", timeout_s=LIMIT_S), RewardSpec("all", f"{file}:batched", gold=True, timeout_s=LIMIT_S)]
    draw = random.Random(5)
    kinds = ["fine", "none", "nan", "raise", "leave 0", "true", "sleep 0.001", "sleep 0.03", "named"]
    asked = [group(*(draw.choice(kinds) for _ in range(draw.randint(0, 5)))) for _ in range(12)]
    expected = {"fine": "ok", "none": "not_applicable", "nan": "not_finite", "raise": "error", "leave 0": "crashed"}
    with RewardWorkers(specs, num_workers=2) as running:
        scored = running.score(asked)
    assert [[response.text for response in each.responses] for each in scored] == [[r.text for r in each.responses] for each in asked]
    texts = [response.text for each in asked for response in each.responses]
    told = [part for each in scored for part in parts(each, "one")]
    assert [part.status for part in told] == [expected.get(text, "ok") for text in texts]
    assert len([part for each in scored for part in parts(each, "all")]) == len(texts)
    counts, statuses = failure_counts(scored), Counter(part.status for part in told)
    assert statuses["crashed"] == counts["reward_crashes/one"]
    assert statuses["error"] == counts["reward_errors/one"]
    assert statuses["not_finite"] == counts["reward_not_finite/one"]


def test_a_reward_that_changes_its_prompt_changes_it_for_itself(workers: RewardWorkers) -> None:
    scored = workers.score([group("answer", "empty_columns", "answer")])[0]
    assert [part.value for part in parts(scored, "trouble")] == [7.0, 0.25, 7.0]


def test_a_reward_that_fails_on_most_responses_is_named_with_an_example(workers: RewardWorkers) -> None:
    scored = workers.score([group("fine", "raise"), group("fine", "raise", "none", "raise")])
    assert too_many_failures(scored, limit=0.5) is None  # three of six is not more than half
    told = too_many_failures(scored, limit=0.4)
    assert told is not None
    for word in ("'trouble'", "3 of 6", "50%", "KeyError", "trouble.py:8", "What now?", "'raise'"):
        assert word in told


def test_what_a_killed_reward_had_started_is_gone_too(workers: RewardWorkers, tmp_path: Path) -> None:
    scored = workers.score([group(f"child {tmp_path / 'ids'}")])[0]
    assert parts(scored, "trouble")[0].status == "timeout"
    worker, child = map(int, (tmp_path / "ids").read_text().split())
    assert wait_for(lambda: not alive(worker) and not alive(child))


def test_a_worker_does_not_outlive_a_trainer_that_is_killed_and_does_not_run_its_script_again(file: Path, tmp_path: Path) -> None:
    script, ids = tmp_path / "trainer.py", tmp_path / "ids"
    script.write_text(f"""
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.types import Group, Prompt, Response

def ask(text):
    return Group(Prompt("p", (1,), "?"), (Response((1,), (True,), text),))

workers = RewardWorkers([RewardSpec("trouble", {f"{file}:trouble"!r}, timeout_s=60)])
workers.start()  # with no __main__ guard around it
print(workers.score([ask("fine")])[0].totals, flush=True)
workers.score([ask({f"child {ids}"!r})])
""")
    trainer = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "(0.25,)\n"
    assert wait_for(lambda: ids.exists() and ids.read_text().endswith(" "))
    worker, child = map(int, ids.read_text().split())
    assert alive(worker)
    trainer.kill()
    trainer.communicate()
    gone = wait_for(lambda: not alive(worker))
    os.kill(child, signal.SIGKILL)
    assert gone


def wait_for(happened: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)
    return happened()


def alive(process: int) -> bool:
    """A process that has ended and that nobody has waited for yet is not alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
