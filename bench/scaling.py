"""How seconds and memory grow with what a step is made of.

    python bench/scaling.py            every curve, some minutes on two quiet cores; writes bench/scaling.json
    python bench/scaling.py G workers  these alone

One thing grows, the rest stays: a step of GRPO (sampling, scoring, update) of a made model, each point in a process of its own. The
exponent is the slope of the line through the logarithms: 1 grows in proportion, 0 not at all. For reward workers it is the scoring of one
step's answers by a reward that takes 10 ms an answer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from sides import Asked, ask_once, open_side
from workloads import Model, Workload, qwen3

FILE = Path(__file__).parent / "scaling.json"
STEPS, WARMUP = 3, 1
SLOW_S, ANSWERS = 0.01, 64  # of the reward whose workers are counted


@dataclass(frozen=True)
class Curve:
    """`points` are what grows and the workload that has so much of it."""

    name: str
    points: tuple[tuple[int, Workload], ...]


def work(name: str, G: int = 8, prompt: int = 64, response: int = 32, words: int = 1000, model: Model | None = None) -> Workload:
    made = model or qwen3(hidden=256, layers=4, heads=4, head_dim=64, inner=768, words=words)
    return Workload(name, name, "grpo", made, 4, G, prompt, response, 1e-4, 0.0, 0.0, steps=STEPS, warmup=WARMUP)


def sized(width: int, layers: int) -> Model:
    return qwen3(hidden=width, layers=layers, heads=width // 64, head_dim=64, inner=3 * width, words=1000)


CURVES = (
    Curve("G", tuple((G, work(f"G {G}", G=G)) for G in (4, 8, 16, 32, 64))),
    Curve("prompt length", tuple((n, work(f"prompt {n}", prompt=n)) for n in (64, 128, 256, 512, 1024))),
    Curve("response length", tuple((n, work(f"response {n}", response=n)) for n in (16, 32, 64, 128, 256))),
    Curve("vocabulary", tuple((V, work(f"words {V}", words=V)) for V in (1_000, 8_000, 32_000, 152_000))),
    Curve(
        "parameters",
        tuple(
            (layers * 14 * width**2 + 1000 * width, work(f"model {width}", model=sized(width, layers)))
            for width, layers in ((128, 2), (256, 4), (384, 8), (640, 12))
        ),
    ),
)


def measured(work: Workload, folder: Path) -> dict[str, float]:
    """The median seconds of a step and the peak memory in MiB."""
    place = folder / work.name
    ask_once("data:serve", (work, place), folder / "log")
    side = open_side("ours", "ours:serve", (work, place), folder / "log")
    steps = [side.ask("step")["seconds"] for _ in range(WARMUP + STEPS)][WARMUP:]
    memory = side.ask("memory")
    side.close()
    return {"seconds": median(steps), "memory": memory}


def serve_workers(asked: Asked, count: int) -> None:
    """Scores the answers of a step with so many workers."""
    from ikusei.guard.outcomes import RewardSpec
    from ikusei.guard.workers import RewardWorkers
    from ikusei.types import Group, Prompt, Response

    groups = [Group(Prompt(str(g), (1,), "?"), tuple(Response((2,), (True,), str(r)) for r in range(8))) for g in range(ANSWERS // 8)]
    with RewardWorkers([RewardSpec("slow", f"{__file__}:slow")], num_workers=count) as workers:
        list(workers.score(groups))
        asked.ready({})
        while True:
            began = time.perf_counter()
            list(workers.score(groups))
            asked.reply({"seconds": time.perf_counter() - began})


def slow(prompt: Any, response: str) -> float:
    """A reward that waits, as one that runs a program or asks a server does."""
    time.sleep(SLOW_S)
    return float(len(response))


def by_workers(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    for count in (1, 2, 4, 8):
        side = open_side("ours", "scaling:serve_workers", (count,), folder / "log")
        yield count, {"seconds": median(side.ask("step")["seconds"] for _ in range(STEPS)), "memory": side.ask("memory")}
        side.close()


def curve(name: str, points: list[tuple[int, dict[str, float]]]) -> dict[str, Any]:
    x, said = [point for point, _ in points], [each for _, each in points]
    record: dict[str, Any] = {"name": name, "x": x, **{key: [each[key] for each in said] for key in ("seconds", "memory")}}
    for key, exponent in (("seconds", "exponent"), ("memory", "memory_exponent")):
        record[exponent] = linear_regression([log(n) for n in x], [log(value) for value in record[key]]).slope
    return record


def main() -> None:
    known = [*(each.name for each in CURVES), "workers"]
    names = sys.argv[1:] or known
    if unknown := set(names) - set(known):
        sys.exit(f"got {', '.join(sorted(unknown))}; allowed: {', '.join(known)}")
    found = {each["name"]: each for each in json.loads(FILE.read_text())["curves"]} if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for each in CURVES:
            if each.name in names:
                found[each.name] = curve(each.name, [(size, measured(work, folder)) for size, work in each.points])
        if "workers" in names:
            found["reward workers"] = curve("reward workers", list(by_workers(folder)))
    for each in found.values():
        print(f"{each['name']:16} seconds {' '.join(f'{s:.3g}' for s in each['seconds'])}   power {each['exponent']:.2f}")
    FILE.write_text(json.dumps({"curves": list(found.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
