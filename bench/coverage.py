"""Do 95 % intervals hold the truth in 95 of 100 evaluations? By simulation, for 64 prompts with 16 answers each.

    python bench/coverage.py         five minutes; prints the two tables of docs/evaluation.md

What is asked: at least 93 % everywhere, and at most 97 % where the truth lies between 0.1 and 0.9, unless all prompts are about equally
hard: what the pseudo-prompts add is then more than prompts differ by. Beside ours stand the percentile bootstrap and the plain t interval,
which shrink to nothing just where they are wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import t

from ikusei.intervals import mean_interval, pass_at_k
from ikusei.run.comparison import paired

PROMPTS, SAMPLES, TRIALS, DRAWS = 64, 16, 5000, 500
Array = np.ndarray
Draw = Callable[[np.random.Generator, int], Array]

ONE: dict[str, Draw] = {  # how often each prompt is answered right
    "hard: Beta(0.5, 4)": lambda rng, n: rng.beta(0.5, 4, n),
    "rare: one prompt of fifty is solvable": lambda rng, n: (rng.random(n) < 0.02) * 0.5,
    "even: Beta(2, 2)": lambda rng, n: rng.beta(2, 2, n),
    "split: Beta(0.2, 0.2)": lambda rng, n: rng.beta(0.2, 0.2, n),
    "good: Beta(8, 1)": lambda rng, n: rng.beta(8, 1, n),
    "nearly done: Beta(60, 1)": lambda rng, n: rng.beta(60, 1, n),
    "done but for one of thirty": lambda rng, n: np.where(rng.random(n) < 1 / 30, 0.02, 1.0),
    "one of ten is known": lambda rng, n: (rng.random(n) < 0.1) * 1.0,
    "one of seven is not": lambda rng, n: (rng.random(n) > 0.15) * 1.0,
    "steep: Beta(3, 1)": lambda rng, n: rng.beta(3, 1, n),
    "alike: Beta(20, 80)": lambda rng, n: rng.beta(20, 80, n),
    "alike: Beta(50, 50)": lambda rng, n: rng.beta(50, 50, n),
    "alike: 0.2, but one of fifty is known": lambda rng, n: np.where(rng.random(n) < 0.02, 1.0, 0.2),
}
TWO: dict[str, Callable[[np.random.Generator, int], tuple[Array, Array]]] = {  # of one model, and of the other
    "the same": lambda rng, n: (lambda p: (p, p))(rng.beta(0.5, 1, n)),
    "a little better everywhere": lambda rng, n: (lambda p: (np.minimum(p + 0.05, 1), p))(rng.beta(1, 2, n)),
    "much better": lambda rng, n: (rng.beta(30, 1, n), rng.beta(1, 3, n)),
    "better on one prompt of twenty": lambda rng, n: ((rng.random(n) < 0.05) * 1.0, np.zeros(n)),
    "both done but for one of thirty": lambda rng, n: (np.full(n, 0.999), np.where(rng.random(n) < 1 / 30, 0.2, 0.995)),
    "each good at others": lambda rng, n: (rng.beta(0.3, 0.3, n), rng.beta(0.3, 0.3, n)),
}


def main() -> None:
    print("| prompts | k | truth | plus-four t | plain t | percentile bootstrap |\n|---|---|---|---|---|---|")
    bad = [row for name, draw in ONE.items() for k in (1, 8) for row in one(name, draw, k)]
    print("\n| models | k | truth | paired, pseudo-prompts | paired t | paired percentile bootstrap |\n|---|---|---|---|---|---|")
    bad += [row for name, draw in TWO.items() for k in (1, 8) for row in two(name, draw, k)]
    sys.exit("\n".join(bad) or 0)


def one(name: str, draw: Draw, k: int) -> list[str]:
    def interval(values: Array) -> tuple[float, float]:
        made = mean_interval(values.tolist())
        return made.low, made.high

    truth = float(by_k(draw(np.random.default_rng(1), 400_000), k).mean())
    return told(name, k, truth, lambda rng: seen(rng, draw(rng, PROMPTS), k), interval)


def two(name: str, draw: Callable[[np.random.Generator, int], tuple[Array, Array]], k: int) -> list[str]:
    def interval(values: Array) -> tuple[float, float]:
        made = paired({str(i): float(value) for i, value in enumerate(values)}, {str(i): 0.0 for i in range(len(values))})
        return made.low, made.high

    def difference(rng: np.random.Generator) -> Array:
        p, q = draw(rng, PROMPTS)
        return seen(rng, p, k) - seen(rng, q, k)

    p, q = draw(np.random.default_rng(1), 400_000)
    return told(name, k, float((by_k(p, k) - by_k(q, k)).mean()), difference, interval)


def by_k(p: Array, k: int) -> Array:
    return 1 - (1 - p) ** k


def seen(rng: np.random.Generator, p: Array, k: int) -> Array:
    """pass@k of each prompt, from its samples."""
    table = np.array([pass_at_k(SAMPLES, right, k) for right in range(SAMPLES + 1)])
    return table[rng.binomial(SAMPLES, p)]


def told(
    name: str, k: int, truth: float, draw: Callable[[np.random.Generator], Array], interval: Callable[[Array], tuple[float, float]]
) -> list[str]:
    """Prints a line; returns what is not as asked."""
    rng = np.random.default_rng(7)
    index = rng.integers(PROMPTS, size=(DRAWS, PROMPTS))
    ways = (interval, plain, lambda values: tuple(np.quantile(values[index].mean(1), [0.025, 0.975])))
    held = np.zeros(3)
    for _ in range(TRIALS):
        values = draw(rng)
        held += [low <= truth <= high for low, high in (way(values) for way in ways)]
    ours, *others = held / TRIALS
    print(f"| {name} | {k} | {truth:.3f} | **{ours:.3f}** | {' | '.join(f'{other:.3f}' for other in others)} |", flush=True)
    most = 0.97 if 0.1 <= abs(truth) <= 0.9 and not name.startswith("alike") else 1
    error = 3 * (0.03 * 0.97 / TRIALS) ** 0.5  # of the simulation itself, which has forty rows
    return [] if 0.93 - error <= ours <= most + error else [f"{name}, k = {k}: {ours:.3f}"]


def plain(values: Array) -> tuple[float, float]:
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


if __name__ == "__main__":
    main()
