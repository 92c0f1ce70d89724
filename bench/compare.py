"""One workload, both sides: TRL's fastest setting is looked for, then they take turns, and what they said becomes one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from data import model_folder
from machine import Shape, sampling_cost, training_operations
from sides import Side, ask_once, open_side
from theirs import Setting
from workloads import Workload

Record = dict[str, Any]
Steps = list[Record]


def compare(work: Workload, folder: Path, machine: Record, before: Record | None) -> Record:
    """The record of a workload. `before`, where it is given, says which of TRL's settings is the fastest."""
    place, log = folder / work.name.split()[0], folder / "log"
    ask_once("data:serve", (work, place), log)
    if work.kind == "skip":
        return skipping(work, place, machine)
    if before is None:
        found = ask_once("theirs:serve_trials", (work, place), log)
        tried, best = found["tried"], found["best"]
    else:
        tried, best = before["theirs"]["tried"], Setting(**before["theirs"]["setting"])
    sides = {"ours": ("ours:serve", (work, place)), "theirs": ("theirs:serve", (work, place, best))}
    said, ends, first = take_turns(work, sides, folder)
    assert not all(first.values()) or first["ours"] == first["theirs"], f"{work.name}: the two sides read different tokens"
    costs = {side: [cost(work, step) for step in steps] for side, steps in said.items()}
    record = described(work) | {"speed": spread(costs["theirs"], costs["ours"], work.warmup)}
    record["memory"] = ends["ours"]["memory_mb"] / ends["theirs"]["memory_mb"]
    for side in sides:
        record[side] = ends[side] | clock(said[side], work.warmup) | {"learned": [each["learned"] for each in said[side]]}
    record["theirs"] |= {"tried": tried, "setting": asdict(best)}
    return record | fractions(work, Shape.read(model_folder(work, place)), said["ours"][work.warmup :], machine, record["ours"])


def take_turns(work: Workload, sides: dict[str, tuple[str, tuple[Any, ...]]], folder: Path) -> tuple[dict[str, Steps], Record, Record]:
    """What each side said of each step, what it held at the end, and the first tokens that it read."""
    said: dict[str, Steps] = {name: [] for name in sides}
    ends, first = {}, {}
    rounds = [[name] for name in sides] if work.apart else [list(sides)]
    for names in rounds:
        opened = {name: open_side(name, *sides[name], folder / f"{name}.log") for name in names}
        for _ in range(work.warmup + work.steps):
            for name, side in opened.items():
                said[name].append(side.ask("step"))
        for name, side in opened.items():
            ends[name], first[name] = ended(side), side.ask("first")
            side.close()
    return said, ends, first


def ended(side: Side) -> Record:
    return {**side.said, "memory_mb": round(side.ask("memory"), 1)}


def cost(work: Workload, step: Record) -> float:
    """Seconds of a step; of supervised texts, which the sides cut into steps differently, seconds for 1,000 trained tokens."""
    return step["seconds"] / (step["tokens"] / 1000 if work.kind == "sft" else 1)


def spread(slow: Sequence[float], fast: Sequence[float], warmup: int) -> Record:
    """The ratio of the medians; low and high are the quartiles of the ratios of steps that were made one after the other."""
    ratios = [s / f for s, f in zip(slow[warmup:], fast[warmup:], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return {"median": median(slow[warmup:]) / median(fast[warmup:]), "low": low, "high": high}


def clock(steps: Steps, warmup: int) -> Record:
    """Medians over the measured steps, and the seconds of each."""
    measured = steps[warmup:]
    parts = {name: median(step[name] for step in measured) for name in ("sample", "reward", "train") if name in measured[0]}
    seconds, tokens = median(step["seconds"] for step in measured), mean(step["tokens"] for step in measured)
    return {"seconds": seconds, "tokens": tokens, **parts, "steps": [round(step["seconds"], 4) for step in steps]}


def described(work: Workload) -> Record:
    return {"title": work.title, "at_least": work.at_least, "aim": work.aim, "memory_at_most": work.memory, "kind": work.kind}


def fractions(work: Workload, shape: Shape, steps: Steps, machine: Record, ours: Record) -> Record:
    """How near our side came to what the machine can do, in training and in sampling."""
    peaks, size = machine["peaks"][str(ours["threads"])], {"fp32": 4, "bf16": 2}[work.precision]
    trained = sum(training_operations(shape, step["trees"], words=work.kind != "reward") for step in steps)
    seconds = sum(step["train"] if "train" in step else step["seconds"] for step in steps)
    found = {"fraction_of_peak": trained / seconds / peaks[work.precision]}
    if "sample" in steps[0]:
        costs = [sampling_cost(shape, step["trees"], ours["slots"], size) for step in steps]
        attainable = sum(max(operations / peaks[work.precision], read / peaks["copy"]) for operations, read in costs)
        found["fraction_of_attainable"] = attainable / sum(step["sample"] for step in steps)
    return found


def skipping(work: Workload, place: Path, machine: Record) -> Record:
    """Ours against ours: the update with all groups against the update with those that teach."""
    side = open_side("ours", "ours:serve_skipping", (work, place), place / "log")
    steps = [side.ask("step") for _ in range(work.warmup + work.steps)]
    whole, skipped = ([step[name] for step in steps] for name in ("whole", "skipped"))
    measured = steps[work.warmup :]
    operations = sum(training_operations(Shape.read(model_folder(work, place)), step["trees"]) for step in measured)
    peak = machine["peaks"][str(side.said["threads"])][work.precision]
    record = described(work) | {"speed": spread(whole, skipped, work.warmup), "memory": None}
    record["fraction_of_peak"] = operations / sum(whole[work.warmup :]) / peak
    side.close()
    return record | {
        "ours": {"seconds": median(skipped[work.warmup :]), "what": "skipped"},
        "theirs": {"seconds": median(whole[work.warmup :]), "what": "not skipped, ours too"},
    }
