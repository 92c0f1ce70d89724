"""The order of asking: results that arrive as they finish are put back into it before anything is computed from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ikusei.types import Group, Prompt


def in_order(prompts: Sequence[Prompt], groups: Sequence[Group]) -> list[Group]:
    """The groups in the order in which their prompts were asked; a prompt may have been asked more than once."""
    waiting: dict[str, deque[Group]] = {}
    for group in groups:
        waiting.setdefault(group.prompt.id, deque()).append(group)
    return [waiting[prompt.id].popleft() for prompt in prompts]
