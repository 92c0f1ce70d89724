"""A gold reward of five levels for the task cat_lover, whose own reward has two. In a file of its own, since reward workers import it."""

from __future__ import annotations

from typing import Any

from ikusei.tasks.cat_lover import judge, natural
from ikusei.types import Prompt

DEGREES = ("とても", "ほんとうに", "いつも")


def graded(prompt: Prompt, response: str, **columns: Any) -> float:
    """0 for no sentence, 1 for a natural one, 2 for one that is kind about cats, and of these one more for a degree and one for a yes."""
    base = natural(prompt, response) + judge(prompt, response)
    return base if base < 2 else base + any(word in response for word in DEGREES) + ("はい、" in response)
