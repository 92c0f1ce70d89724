"""Law 9 at load: rewards that hang, raise, leave, crash, eat memory or return nonsense, one call in a hundred each, among thousands.

    python bench/faults.py [CALLS]        10,000 by default: some minutes; writes bench/faults.json

What is asked: every other result is right, none is lost, every trouble has its name, and all of it ends in bounded time.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.types import Group, Prompt, Response

LIMIT_S, SIZE = 0.5, 8  # of one call; answers a group
FATES = {  # what a response makes the reward do, and the statuses that it may get: a bomb may run into either limit
    "hang": ("timeout",), "raise": ("error",), "leave": ("crashed",), "segfault": ("crashed",), "bomb": ("error", "timeout"),
    "nan": ("not_finite",), "text": ("error",),
}  # fmt: skip
REWARD = """
import ctypes, os, time

def marks(prompt, response, **columns):
    kind, _, number = response.partition(" ")
    if kind == "hang":
        time.sleep(1e6)
    if kind == "raise":
        raise RuntimeError("no")
    if kind == "leave":
        os._exit(0)
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "bomb":
        return float(len([bytearray(64 << 20) for _ in range(64)]))
    return {"nan": float("nan"), "text": "1.0"}.get(kind) or int(number) / 7
"""


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    chance = random.Random(0)
    kinds = [*FATES] * (calls // 100) + ["fine"] * (calls - len(FATES) * (calls // 100))
    chance.shuffle(kinds)
    texts = [f"{kind} {number}" for number, kind in enumerate(kinds)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "marks.py"
        file.write_text(REWARD)
        with RewardWorkers([RewardSpec("marks", f"{file}:marks", timeout_s=LIMIT_S)], num_workers=2) as workers:
            began = time.perf_counter()
            pending = [workers.submit(group(texts[at : at + SIZE])) for at in range(0, calls, SIZE)]
            scored = [response for each in pending for response in each.result().responses]
            seconds = time.perf_counter() - began
    statuses: Counter[str] = Counter()
    wrong = [text for text, response in zip(texts, scored, strict=True) if not as_it_should(text, response, statuses)]
    told = {"calls": calls, "results": len(scored), "wrong": len(wrong), "seconds": round(seconds, 1), "statuses": dict(statuses)}
    (Path(__file__).parent / "faults.json").write_text(json.dumps(told, indent=1) + "\n")
    print(told, wrong[:3])


def group(texts: list[str]) -> Group:
    return Group(Prompt("p", (1,), "?"), tuple(Response((1,), (True,), text) for text in texts))


def as_it_should(text: str, response: Response, statuses: Counter[str]) -> bool:
    assert response.score is not None, "a result that was lost"
    part, (kind, _, number) = response.score.parts["marks"], text.partition(" ")
    statuses[f"{kind}: {part.status}"] += 1
    return part.value == int(number) / 7 if kind == "fine" else part.status in FATES[kind] and part.value is response.total is None


if __name__ == "__main__":
    main()
