"""Puts groups, which arrive in the order in which they finish, back into the order of their prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ikusei.types import Group, Prompt


def in_order(prompts: Sequence[Prompt], groups: Sequence[Group]) -> list[Group]:
    """The groups in the order of `prompts`, in which a prompt may be more than once."""
    waiting: dict[str, deque[Group]] = {}
    for group in groups:
        waiting.setdefault(group.prompt.id, deque()).append(group)
    return [waiting[prompt.id].popleft() for prompt in prompts]
