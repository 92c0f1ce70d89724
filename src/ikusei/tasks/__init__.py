"""Tasks: sources of prompts and gold answers, each with its default rewards.

A task is a frozen dataclass with `num_rows(split)` and `row(split, index)` (see `protocols.Task`) and `rewards`, the paths of the rewards
that serve where a recipe names none. A recipe names it by its file: one whose class has the two methods is a task. Rows are random access
and depend on (split, index, settings) alone. Of questions that are generated, the hash of the question decides here which are held out: two
tasks that can ask the same one agree about its split.
"""

from __future__ import annotations

import hashlib
from random import Random

from ikusei.registry import Definition, Registry, methods
from ikusei.types import Split, content_id

TEST_SHARE = 1 / 16


def is_task(file: str, defined: Definition) -> bool:
    """Whether a class has the methods of a task."""
    return methods(defined) >= {"num_rows", "row"}


TASKS = Registry(__name__, is_task)


def held_out(question: str) -> bool:
    """True where a question belongs to the test split, in every task alike."""
    digest = hashlib.blake2b(question.encode(), digest_size=8, person=b"held-out").digest()
    return int.from_bytes(digest, "big") < TEST_SHARE * 2**64


def split_of(question: str) -> Split:
    return "test" if held_out(question) else "train"


def generator(*parts: object) -> Random:
    """A random generator seeded by the parts alone: the same on every machine and in every process."""
    return Random(int(content_id(*parts), 16))
