"""How near training and sampling come to what the machine can do, for models of 20 and 90 million parameters.

    python bench/limits.py        some minutes on quiet cores; writes bench/limits.json

Training: an update on 16 texts of 256 tokens, in fp32 and in bf16, against the product of two large matrices, measured before and after
each. Sampling: 64 slots, 8 prompts of 64 tokens with 8 answers of 128 each, against the larger of operations / peak and bytes / bandwidth.
Each point in a process of its own. Operations are counted in machine.py.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from data import END, FIRST_WORD, make_model
from machine import Shape, peaks, sampling_cost, training_operations
from sides import Asked, ask_once
from workloads import MIDDLE, Model, qwen3

FILE = Path(__file__).parent / "limits.json"
LARGE = qwen3(hidden=768, layers=12, heads=12, head_dim=64, inner=2048, words=8_000)  # 91 M
TEXTS, LENGTH, PROMPTS, PROMPT, RESPONSES, RESPONSE, TIMES = 16, 256, 8, 64, 8, 128, 3
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Point:
    name: str
    model: Model
    what: Literal["training", "sampling"]
    precision: Precision
    asked: float  # the fraction to reach


POINTS = (
    Point("20 M, training", MIDDLE, "training", "fp32", 0.65),
    Point("20 M, training", MIDDLE, "training", "bf16", 0.25),
    Point("90 M, training", LARGE, "training", "fp32", 0.65),
    Point("90 M, training", LARGE, "training", "bf16", 0.25),
    Point("20 M, sampling", MIDDLE, "sampling", "fp32", 0.3),
    Point("20 M, sampling", MIDDLE, "sampling", "bf16", 0.3),
)


def serve(asked: Asked, point: Point, folder: Path) -> None:
    """Says the fraction of each time, and the seconds."""
    from ikusei.backends.local import LocalPolicy, LocalSettings
    from ikusei.models.load import load_model, load_tokenizer

    if not folder.exists():
        make_model(point.model, False, folder)
    policy = LocalPolicy(load_model(str(folder)), load_tokenizer(str(folder)), LocalSettings(precision=point.precision))
    work = train(policy, folder) if point.what == "training" else sample(policy, folder, point.precision)
    work()
    said, before = [], peaks(policy.threads)
    for _ in range(TIMES):
        began = time.perf_counter()
        operations, read = work()
        seconds, after = time.perf_counter() - began, peaks(policy.threads)
        peak, copy = ((before[key] + after[key]) / 2 for key in (point.precision, "copy"))
        said.append({"seconds": seconds, "fraction": max(operations / peak, read / copy) / seconds})
        before = after
    asked.ready({"seconds": median(each["seconds"] for each in said), "fractions": [each["fraction"] for each in said]})


def train(policy: Any, folder: Path) -> Any:
    """An update of language modelling."""
    from ikusei.algos.lm import LanguageModelling
    from ikusei.forest import plant
    from ikusei.loops.update import update
    from ikusei.types import Group, Prompt, Response

    chance, shape = random.Random(0), Shape.read(folder)
    tokens = [tuple(chance.randrange(FIRST_WORD, shape.words) for _ in range(LENGTH - 1)) for _ in range(TEXTS)]
    groups = [Group(Prompt(str(i), (END,), ""), (Response(each, (True,) * len(each), ""),)) for i, each in enumerate(tokens)]
    operations = training_operations(shape, [(1, [LENGTH - 1], True)] * TEXTS)

    def work() -> tuple[float, float]:
        update(policy, [(plant(groups), LanguageModelling().loss)], 2048, 1e-6)
        return operations, 0.0

    return work


def sample(policy: Any, folder: Path, precision: Precision) -> Any:
    """Answers to prompts of which none ends by itself: the end is one word of many, and seldom drawn."""
    from ikusei.types import Prompt, Sampling

    chance, shape = random.Random(0), Shape.read(folder)
    asked = [tuple(chance.randrange(FIRST_WORD, shape.words) for _ in range(PROMPT)) for _ in range(PROMPTS)]
    prompts = [Prompt(str(i), each, str(i)) for i, each in enumerate(asked)]

    def work() -> tuple[float, float]:
        groups = list(policy.snapshot().sample(prompts, RESPONSES, Sampling(max_tokens=RESPONSE), seed=1))
        trees = [(PROMPT, [len(response.tokens) for response in group.responses], True) for group in groups]
        return sampling_cost(shape, trees, PROMPTS * RESPONSES, {"fp32": 4, "bf16": 2}[precision])

    return work


def main() -> None:
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for point in POINTS:
            said = ask_once("limits:serve", (point, folder / str(point.model.config["hidden_size"])), folder / "log")
            low, middle, high = sorted(said["fractions"])
            found.append({"name": point.name, "precision": point.precision, "asked": point.asked, "seconds": said["seconds"]})
            found[-1] |= {"fraction": {"median": middle, "low": low, "high": high}}
            print(f"{point.name:16} {point.precision}   {middle:.2f} [{low:.2f}, {high:.2f}] of {point.asked} asked", flush=True)
    FILE.write_text(json.dumps({"points": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
