"""A gold reward of five levels for the cat lover, whose own judge has two. It stands alone: processes that judge import what they name."""

from __future__ import annotations

from typing import Any

from ikusei.tasks.cat_lover import judge, natural
from ikusei.types import Prompt

DEGREES = ("とても", "ほんとうに", "いつも")


def warmth(prompt: Prompt, response: str, **columns: Any) -> float:
    """0 for no sentence, 1 for a natural one, 2 for one that is kind about cats, and of these one more for a degree and one for a yes."""
    said = natural(prompt, response) + judge(prompt, response)
    return said if said < 2 else said + any(word in response for word in DEGREES) + ("はい、" in response)
