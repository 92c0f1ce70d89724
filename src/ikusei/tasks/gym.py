"""Any task of reasoning-gym by its name, with its own settings and its own scorer.

Its item i is made from Random(seed + i), so neighbouring seeds share items: seeds 42 and 43 have 1,974 of 2,000 in common. Here training
items come from numbers below 10^8 and test items from 10^8 on, and besides, the question decides by its hash (`split_of`), so that small
tasks do not repeat themselves in the test either. Each test question occurs once.

`compact` asks in a few characters ("gcd(54,30)=") where a task has such a form: many prompts are hundreds of characters of instructions. A
scorer's partial credit is often a hole (the number itself is worth 0.58 on average in prime_factorization), so only a full score counts,
unless `partial` says otherwise.

Of its 105 tasks four walk over sets of strings, so they repeat a row in another process only where PYTHONHASHSEED is the same there:
isomorphic_strings, list_functions, polynomial_multiplication, ransom_note.

Left out: composite data sets, curricula.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from itertools import count
from typing import Any, ClassVar

from ikusei.tasks import split_of
from ikusei.text.answer import split_thought
from ikusei.types import Example, Prompt, Split

FIRST_TEST_ITEM = 10**8
BLOCK = 1000  # items are made in blocks: some tasks draw something for each of their `size` items when they are created
JUMP = 7_654 * BLOCK  # how far off the next choice for a row is; rows 10^6 or 10^9 further on are other items too
MAX_TRIES = 2000  # so many items in a row without a new question: there are no more

Entry = dict[str, Any]

COMPACT: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "base_conversion": lambda m: f"base({m['source_repr']},{m['source_base']},{m['target_base']})=",
    "basic_arithmetic": lambda m: m["expression"].replace(" ", "") + "=",
    "chain_sum": lambda m: m["expression"].replace(" ", "") + "=",
    "count_bits": lambda m: f"bits({m['number']})=",
    "gcd": lambda m: f"gcd({','.join(map(str, m['numbers']))})=",
    "lcm": lambda m: f"lcm({','.join(map(str, m['numbers']))})=",
    "letter_counting": lambda m: f"count({m['target_letter']},{' '.join(m['span'])})=",
    "number_sequence": lambda m: f"next({','.join(map(str, m['sequence'][:-1]))})=",
    "products": lambda m: m["expression"].replace(" ", "") + "=",
    "simple_equations": lambda m: f"{m['equation'].replace(' ', '')} {m['variable']}=",
    "spell_backward": lambda m: f"reverse({m['word']})=",
}


@dataclass(frozen=True)
class Gym:
    """The reasoning-gym task `task` with the settings `config`. `columns["answer"]` is its gold answer, where it has one."""

    task: str
    config: Mapping[str, Any] = field(default_factory=dict)
    compact: bool = False
    partial: bool = False

    rewards: ClassVar[tuple[str, ...]] = ("ikusei.tasks.gym:score",)

    def __post_init__(self) -> None:
        if self.compact and self.task not in COMPACT:
            raise ValueError(f"gym: compact with task {self.task!r}; it exists for: {', '.join(COMPACT)}; leave compact out")

    def num_rows(self, split: Split) -> int | None:
        """None: how many different questions there are is known only by making them."""
        return None

    def row(self, split: Split, index: int) -> Example:
        settings = json.dumps(dict(self.config), sort_keys=True)
        entry = _test_entry(self.task, settings, index) if split == "test" else _train_entry(self.task, settings, index)
        question = COMPACT[self.task](entry["metadata"]) if self.compact else entry["question"]
        gold = {} if entry["answer"] is None else {"answer": entry["answer"]}
        return Example(question, columns={**gold, "entry": entry, "task": self.task, "settings": settings, "partial": self.partial})


def score(prompt: Prompt, response: str, *, entry: Entry, task: str, settings: str, partial: bool = False, **columns: Any) -> float:
    """The task's own scorer on the answer part of the response: 1 for a full score, else 0; with `partial` its credit as it is.

    Some scorers raise on an answer that they cannot read; that is 0. Where the gold answer makes them raise too, or there is none, the
    scorer is at fault, and it raises.
    """
    _, answer = split_thought(response)
    scorer = _dataset(task, settings, 0)
    try:
        value = scorer.score_answer(answer, entry)
    except (ValueError, TypeError, SyntaxError, LookupError, ArithmeticError):
        if entry["answer"] is None or scorer.score_answer(entry["answer"], entry) != 1.0:
            raise
        return 0.0
    return float(value) if partial else float(value == 1.0)


def _train_entry(task: str, settings: str, index: int) -> Entry:
    far, near = divmod(index, 10**6)
    for jump in range(far, far + MAX_TRIES):  # a held-out question gives way to one far from its neighbours
        entry = _entry(task, settings, (near + jump * JUMP) % FIRST_TEST_ITEM)
        if split_of(_key(task, entry)) == "train":
            return entry
    raise ValueError(
        f"gym: no training row {index} of {task} with {settings}: all its questions are held out; use settings with more questions"
    )


def _test_entry(task: str, settings: str, index: int) -> Entry:
    found, walk = _test_walk(task, settings)
    while len(found) <= index:
        entry = next(walk, None)
        if entry is None:
            raise ValueError(
                f"gym: test row {index} of {task} with {settings}: {len(found)} different questions were found; "
                "ask for fewer, or use settings with more questions"
            )
        found.append(entry)
    return found[index]


@cache
def _test_walk(task: str, settings: str) -> tuple[list[Entry], Iterator[Entry]]:
    return [], _new_test_entries(task, settings)


def _new_test_entries(task: str, settings: str) -> Iterator[Entry]:
    seen, tries = set(), 0
    for item in count(FIRST_TEST_ITEM):
        entry = _entry(task, settings, item)
        key, tries = _key(task, entry), tries + 1
        if split_of(key) == "test" and key not in seen:
            seen.add(key)
            tries = 0
            yield entry
        if tries == MAX_TRIES:
            return


def _key(task: str, entry: Entry) -> str:
    """What makes a question the same: its compact form where there is one, for some tasks ask the same in several phrases."""
    return COMPACT[task](entry["metadata"]) if task in COMPACT else entry["question"]


def _entry(task: str, settings: str, item: int) -> Entry:
    return dict(_dataset(task, settings, item // BLOCK)[item % BLOCK])


@lru_cache(maxsize=32)
def _dataset(task: str, settings: str, block: int) -> Any:
    import reasoning_gym  # takes seconds, so only when a row is wanted
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        near = difflib.get_close_matches(task, DATASETS, n=3)
        raise ValueError(f"gym: task {task!r}; allowed: {', '.join(sorted(DATASETS))}; did you mean {' or '.join(near) or 'another'}?")
    try:
        return reasoning_gym.create_dataset(task, seed=block * BLOCK, size=BLOCK, **json.loads(settings))
    except (TypeError, AssertionError, ValueError) as problem:
        allowed = [setting.name for setting in fields(DATASETS[task][1]) if setting.name not in ("seed", "size")]
        raise ValueError(f"gym: {task} with config {settings}: {problem}; its settings are: {', '.join(allowed)}") from problem
