"""One file for each algorithm: hyperparameters, `credit` and `loss`. Recipes name it by its file; the laws list it twice.

A file is an algorithm where its class has a `loss`. Hyperparameters with a name of their own are listed below the class:

    VALUES = {"dapo": GRPO(scale_rewards="group", clip_high=0.28)}          keywords and literals
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ikusei.registry import Definition, Registry, methods


def is_algorithm(file: str, defined: Definition) -> bool:
    """Whether a class has a loss."""
    return "loss" in methods(defined)


ALGORITHMS = Registry(__name__, is_algorithm)


@cache
def named_values() -> dict[str, dict[str, Any]]:
    """For each named value: the name of its algorithm and the hyperparameters that it sets."""
    return ALGORITHMS.named_values()
