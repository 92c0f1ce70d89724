"""bench/results.json as a page, docs/performance.md, with its plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plots
from machine import __doc__ as COUNTED

DOCS = Path(__file__).parents[1] / "docs"
SCALING = Path(__file__).parent / "scaling.json"
LIMITS = Path(__file__).parent / "limits.json"
META = ("machine", "commit", "date")
SIDES = {"theirs": "TRL", "ours": "ours"}
Record = dict[str, Any]

HEAD = """# Performance

Ikusei against TRL {trl}: the same weights, rows, rewards, learning rate and number of updates on both sides. `make bench` measures every
row and writes this page; `python bench/vs_trl.py W3 T` measures some. The numbers lie in `bench/results.json`.

Measured {date} at commits {commits} on {cores} cores of {processor}, {memory_gib} GiB, torch {torch}, transformers {transformers}.

Each side runs in a process of its own, and they take turns step by step, so that what else the machine does falls on both. Speed is the
ratio of the median seconds of a step, TRL's over ours; in brackets the quartiles of the ratios of steps made one after the other (T: the
lowest and the highest of three seeds). Memory is the peak resident memory of our process and its reward workers over that of TRL's process,
libraries included. Precision is fp32 on both sides, in W9 bf16 products on fp32 weights. TRL runs in the fastest setting that was found for
it (see below).

![Speed against TRL](speed.svg)

| | workload | speed | at least · aim | memory | at most | seconds: TRL | ours | of peak, training | of attainable, sampling |
|---|---|---|---|---|---|---|---|---|---|"""

NOTES = """
W5 is ours against ours: the update of a batch in which half of the groups, with half of the tokens, have equal rewards, learned from whole
and with those groups skipped; its seconds are those of the update alone. W8 compares seconds for 1,000 trained tokens, because packing cuts
the texts into steps of its own; a text never looks at another one on either side. In W9 the two processes do not fit into memory together
and run one after the other.

## Both learn

The mean reward of each step, of W6 to W8 the loss.

| | TRL | ours |
|---|---|---|"""

TARGET = """
T: held-out pass@1 every five steps, and the seconds from nothing until it passed.

| seed | TRL | ours |
|---|---|---|"""

TIMES = """
## Where the time goes

![Where the time goes](where_time_goes.svg)

Seconds of a step. Scoring overlaps with sampling on our side; reward is what it takes beyond that.

| | side | sample | reward | train | other |
|---|---|---|---|---|---|"""

MACHINE = """
## The machine

| threads | fp32 product, GFLOP/s | bf16 product, GFLOP/s | copy, GB/s |
|---|---|---|---|"""

FRACTIONS = """
A fraction is of the peak at the threads and in the precision that our side computed with. Counted by hand:

```
{counted}
```

Start-up to the first step, beyond importing torch and the model's class: {starts}."""

TRIED = """
## What TRL was tried with

Checkpointed gradients, logging, saving and pinned memory are off, and the optimiser is fused. Then torch threads, micro-batches ("parts"
below), and for sampling `generate` against transformers' continuous batching (paged; its cache is sized to the step, for by itself it
takes half of the memory and is ten times slower here; in bf16 it leaves the weights themselves in bf16, so not in W9). Seconds of the
fastest of up to three steps, for W8 of 1,000 tokens; no further setting is begun after 150 s. Texts are not grouped by length, which would
change what each step learns from.

| | tried | measured with |
|---|---|---|"""

GPU = """
## On a GPU

No GPU has been at hand yet. `python bench/gpu.py` compares the two sides there, in bf16 on shapes of 0.1 to 1.7 B parameters. The forest's
attention is FlexAttention with the tree as its mask, and decoding looks at what has ended every 16 steps, so that it seldom waits for the
device; both are held against the CPU's numbers in the tests, their speed is not known."""

CURVES = """
## Scaling

![Scaling](scaling.svg)

| | from · to | seconds | grows with the power |
|---|---|---|---|"""


NEAR = """
## How near the machine's limit

Fractions as above, of models of 20 and 90 million parameters: an update on 16 texts of 256 tokens, and sampling into 64 slots, each against
peaks measured before and after it (`python bench/limits.py`; in brackets the lowest and the highest of three).

| | precision | fraction | at least | seconds |
|---|---|---|---|---|"""


SHORT = """
## What is not reached, and why

- **T** is short of 2×. Our 13.5 s are five until the loop stands (torch 1.3 s; transformers 3.2 s, 2.0 of them its module of models, which
  loads torch._dynamo and scipy), then ten steps of 0.55 s and two evaluations of 0.7 s, and more where the machine is busy. Ten steps take
  TRL ten and a half of its 21 s; it imports as much as we do, and more. With these five seconds as a floor, 2× would need a step in 0.4 s.
  A longer run comes near the ratios of W1 and W2.
- **W3** lies at 8× within its spread: two runs had 7.83 and 7.99. Its fraction of the peak is 0.39 in the other run and 0.79 in this one,
  whose peak was measured while the machine was busy: the peak is taken once a call. The update is two thirds of the step;
  what is left to gain there is attention (a quarter of its time, torch's kernel at 0.4 of the product's rate) and passes over activations.
- **Training, 20 million parameters, fp32:** of one thread's time products take 69 % at 0.85 to 0.95 of the peak, attention 9 %, passes over
  activations (norms, rotations, gates, sums) 17 %. With two threads products of these shapes reach less of their peak than a product of
  3,072 numbers a side. At 90 million the products are larger and 0.65 is reached. Tried without gain: huge pages, other thresholds of
  the allocator, attention by batched products.
- **Sampling, 20 million parameters, 64 slots:** 0.28, at best 0.31. Half of the time are products of 64 rows at half of the peak: a layer's
  weights do not stay in a core's cache from one step to the next. A quarter is attention, bound by reading keys and values; the rest are a
  dozen small operations a layer.
- **bf16:** the weights are cast for each micro-batch, which one of 2,048 tokens of a small model hardly repays, and norms, rotations,
  softmax and sums stay in fp32. At 90 million parameters it is 0.24. Sampling takes 0.8 of fp32's time, not half, for the same reasons
  as above.
"""


def write(found: Record) -> None:
    """docs/performance.md and the plots beside it."""
    rows = {name: found[name] for name in sorted(found) if name not in META}
    plots.speeds(rows, DOCS / "speed.svg")
    plots.times(rows, DOCS / "where_time_goes.svg")
    head = HEAD.format(**found["machine"], date=found["date"], commits=commits(rows))
    step = [head, *table(rows), NOTES, *learning(rows), TIMES, *times(rows)]
    limits = [MACHINE, *machine(found["machine"], rows), SHORT, TRIED, *tried(rows)]
    (DOCS / "performance.md").write_text("\n".join([*step, *limits, *near(), *scaling(), GPU]) + "\n")


def commits(rows: Record) -> str:
    """Each commit with the rows that were measured at it."""
    by_commit: dict[str, list[str]] = {}
    for name, record in rows.items():
        by_commit.setdefault(record["commit"], []).append(name)
    return "; ".join(f"{commit} ({', '.join(names)})" for commit, names in by_commit.items())


def line(name: str, record: Record) -> str:
    """One workload on one line of a terminal."""
    ours, theirs = (record[side]["seconds"] for side in ("ours", "theirs"))
    return f"{name:10} {ratio(record)}   theirs {theirs:.2f} s, ours {ours:.2f} s   memory {share(record['memory'])}"


def table(rows: Record) -> list[str]:
    return [cells(name, record["title"], ratio(record), reach(record), *amounts(record)) for name, record in rows.items()]


def ratio(record: Record) -> str:
    speed = record["speed"]
    bold = "**" if speed["median"] >= record["at_least"] else ""
    return f"{bold}{speed['median']:.2f}×{bold} [{speed['low']:.2f}, {speed['high']:.2f}]"


def reach(record: Record) -> str:
    return f"{record['at_least']:g}× · {record['aim']:g}×"


def amounts(record: Record) -> list[str]:
    memory = [share(record[key]) for key in ("memory", "memory_at_most")]
    seconds = [f"{record[side]['seconds']:.2f}" for side in SIDES]
    return [*memory, *seconds, *(share(record.get(key)) for key in ("fraction_of_peak", "fraction_of_attainable"))]


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def cells(*said: str) -> str:
    return f"| {' | '.join(said)} |"


def learning(rows: Record) -> list[str]:
    learned = {name: record for name, record in rows.items() if "learned" in record["ours"]}
    said = [cells(name, *(" ".join(f"{x:.3g}" for x in record[side]["learned"]) for side in SIDES)) for name, record in learned.items()]
    if "T" in rows:
        runs = zip(*(rows["T"][side]["runs"] for side in SIDES), strict=True)
        said += [TARGET, *(cells(str(seed), *map(until_passed, pair)) for seed, pair in enumerate(runs))]
    return said


def until_passed(run: Record) -> str:
    passed = " ".join(f"{value:.2f}" for value in run["passed"])
    return f"{passed}: {run['seconds']:.0f} s" + ("" if run["reached"] else ", not reached")


def times(rows: Record) -> list[str]:
    clocked = [(name, side) for name, record in rows.items() for side in SIDES if "sample" in record[side]]
    return [cells(name, SIDES[side], *(f"{value:.3f}" for value in plots.parts(rows[name][side]))) for name, side in clocked]


def machine(said: Record, rows: Record) -> list[str]:
    peaks = [
        cells(threads, f"{peak['fp32'] / 1e9:.0f}", f"{peak['bf16'] / 1e9:.0f}", f"{peak['copy'] / 1e9:.1f}")
        for threads, peak in said["peaks"].items()
    ]
    assert COUNTED is not None
    counted = "\n".join(line.removeprefix("    ") for line in COUNTED.strip().split("\n\n", 1)[1].splitlines())
    starts = ", ".join(f"{name} {record['ours']['startup']:.2f} s" for name, record in rows.items() if "startup" in record["ours"])
    return [*peaks, FRACTIONS.format(counted=counted, starts=starts)]


def tried(rows: Record) -> list[str]:
    tries = {name: record["theirs"]["tried"] for name, record in rows.items() if "tried" in record["theirs"]}
    return [
        cells(name, "; ".join(f"{setting}: {seconds:.2f}" for setting, seconds in each.items()), min(each, key=lambda key: each[key]))
        for name, each in tries.items()
    ]


def near() -> list[str]:
    """What bench/limits.py wrote, where it has run."""
    if not LIMITS.exists():
        return []
    return [NEAR] + [
        cells(each["name"], each["precision"], within(each["fraction"], each["asked"]), f"{each['asked']:g}", f"{each['seconds']:.2f}")
        for each in json.loads(LIMITS.read_text())["points"]
    ]


def within(fraction: Record, asked: float) -> str:
    bold = "**" if fraction["median"] >= asked else ""
    return f"{bold}{fraction['median']:.2f}{bold} [{fraction['low']:.2f}, {fraction['high']:.2f}]"


def scaling() -> list[str]:
    """The curves that bench/scaling.py wrote, where it has run."""
    if not SCALING.exists():
        return []
    curves = json.loads(SCALING.read_text())["curves"]
    plots.scaling(curves, DOCS / "scaling.svg")
    return [CURVES] + [
        cells(each["name"], f"{each['x'][0]} · {each['x'][-1]}", " ".join(f"{s:.3g}" for s in each["seconds"]), f"{each['exponent']:.2f}")
        for each in curves
    ]
