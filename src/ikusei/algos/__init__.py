"""One file an algorithm: frozen numbers, `credit` and `loss`. A recipe names it by its file, and the laws have it in two lists.

A file is an algorithm where its class has a `loss`. Other numbers of the class that have a name of their own stand below it:

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
    """What a recipe may say for each named value: the name of its algorithm and the numbers that it is given."""
    return ALGORITHMS.named_values()
