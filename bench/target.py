"""T: how long from nothing to a policy that is right 0.85 of the time on sums it has not seen, everything counted.

A side's clock runs from the start of its process (imports, loading, training, evaluation) to the end of the evaluation that passes. Both
take recipes/quickstart.yaml's prompts, group size and learning rate, and every 5 steps write 4 answers to each of 64 held-out prompts, each
side with the code that it trains with.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

import ours
import theirs
from data import Row, read_rows
from sides import Asked, ask_once, open_side
from workloads import Workload

SEEDS = (0, 1, 2)
GOAL, EVERY, MOST = 0.85, 5, 80  # pass@1, steps between evaluations, and the steps after which it is given up
PROMPTS, SAMPLES = 64, 4  # of an evaluation
QUICKSTART = Workload(
    "T", f"time to {GOAL} held-out pass@1, from nothing", "grpo", None, 16, 8, 16, 96, 5e-5, at_least=2.0, aim=3.0, steps=MOST, warmup=0
)  # as in recipes/quickstart.yaml


def measure(folder: Path, before: dict[str, Any] | None) -> dict[str, Any]:
    """The record of T. `before`, where it is given, says which of TRL's settings is the fastest."""
    place = folder / "T"
    ask_once("target:serve_rows", (place,), folder / "rows.log")
    if before is None:
        found = ask_once("theirs:serve_trials", (QUICKSTART, place), folder / "trials.log")
        tried, best = found["tried"], found["best"]
    else:
        tried, best = before["theirs"]["tried"], theirs.Setting(**before["theirs"]["setting"])
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for seed in SEEDS:
        runs["ours"].append(until_goal("target:serve_ours", (place, seed), folder))
        runs["theirs"].append(until_goal("target:serve_theirs", (place, seed, best), folder))
    sides = {
        side: {"seconds": median(run["seconds"] for run in each), "memory_mb": median(run["memory_mb"] for run in each), "runs": each}
        for side, each in runs.items()
    }
    ratios = [slow["seconds"] / fast["seconds"] for fast, slow in zip(runs["ours"], runs["theirs"], strict=True)]
    speed = {"median": sides["theirs"]["seconds"] / sides["ours"]["seconds"], "low": min(ratios), "high": max(ratios)}
    sides["theirs"] |= {"tried": tried, "setting": asdict(best)}
    reach = {"title": QUICKSTART.title, "at_least": QUICKSTART.at_least, "aim": QUICKSTART.aim, "memory_at_most": None, "kind": "target"}
    return {**reach, "speed": speed, "memory": sides["ours"]["memory_mb"] / sides["theirs"]["memory_mb"], **sides}


def until_goal(serve: str, arguments: tuple[Any, ...], folder: Path) -> dict[str, Any]:
    """One run of one side, which answers with an evaluation each time that it is asked."""
    began = time.perf_counter()
    side = open_side("target", serve, arguments, folder / "target.log")
    passed: list[float] = []
    while len(passed) < MOST // EVERY and (not passed or passed[-1] < GOAL):
        passed.append(side.ask("step"))
    seconds = time.perf_counter() - began
    said = {"seconds": seconds, "steps": len(passed) * EVERY, "passed": passed, "reached": passed[-1] >= GOAL}
    said["memory_mb"] = side.ask("memory")
    side.close()
    return said


def serve_rows(asked: Asked, place: Path) -> None:
    """Writes the quickstart's rows, those to learn from and those held out."""
    from ikusei.tasks.arithmetic import Arithmetic

    task = Arithmetic()
    place.mkdir(parents=True, exist_ok=True)
    learned, held_out = [task.row("train", i) for i in range(QUICKSTART.rows)], [task.row("test", i) for i in range(PROMPTS)]
    for file, examples in (("rows.json", learned), ("held_out/rows.json", held_out)):
        (place / file).parent.mkdir(exist_ok=True)
        (place / file).write_text(json.dumps([{"prompt": each.prompt, "answer": each.columns["answer"]} for each in examples]))
    asked.ready({})


def serve_ours(asked: Asked, place: Path, seed: int) -> None:
    from data import Listed

    from ikusei.loops.data import Rows
    from ikusei.loops.evaluate import EvalSettings, evaluate
    from ikusei.loops.steps import StopRequest
    from ikusei.protocols import first_state

    with ExitStack() as stack:
        loop = ours.build(QUICKSTART, place, stack, seed)
        held_out = Rows(Listed("grpo", tuple(read_rows(place / "held_out"))), loop.policy.tokenizer, seed).held_out(PROMPTS)
        asked.ready({})
        for step in loop.steps(0, first_state(loop.algorithm), StopRequest()):
            if step.number % EVERY == 0:
                sampler, settings = loop.policy.snapshot(), EvalSettings(PROMPTS, SAMPLES)
                found = evaluate(sampler, held_out, loop.workers, settings, loop.sampling, seed)
                asked.reply(float(found.results["pass@1"].value))


def serve_theirs(asked: Asked, place: Path, seed: int, setting: theirs.Setting) -> None:
    from transformers import TrainerCallback

    trainer = theirs.build(QUICKSTART, place, setting, MOST, seed)
    rows = theirs.rows_for(QUICKSTART, read_rows(place / "held_out"), trainer.processing_class)
    held_out: list[Row] = [row for row in rows for _ in range(SAMPLES)]

    class Evaluate(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            asked.ready({})

        def on_step_end(self, args: Any, state: Any, control: Any, **__: Any) -> None:
            if state.global_step % EVERY == 0:
                asked.reply(passed(trainer, held_out))

    trainer.add_callback(Evaluate())
    trainer.train()


def passed(trainer: Any, held_out: list[Row]) -> float:
    """The share of right answers, written as the trainer writes those that it learns from."""
    trainer.model.eval()
    texts = trainer._generate([row["prompt"] for row in held_out])[3]
    trainer.model.train()
    return mean(theirs.exact([], texts, [row["answer"] for row in held_out]))
