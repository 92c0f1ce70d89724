"""What guessing would reach: the curve that stands beside pass@k, for where answers are few, many tries are right without any reading.

    guess@k        k answers drawn from the gold answers of training rows          1 - (1 - q(a))^k, q(a) their share that is a
    commonest@k    the k commonest gold answers of training rows

Only for tasks whose rows have a column `answer`; answers count as equal when their letters do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ikusei.intervals import Interval, mean_interval
from ikusei.protocols import Task
from ikusei.types import Prompt

SEEN = 512  # training rows


def by_guessing(task: Task, prompts: Sequence[Prompt], ks: Sequence[int]) -> dict[str, Interval]:
    """Of these prompts, for each k; {} where answers are not known."""
    count = task.num_rows("train")
    seen = [task.row("train", index).columns.get("answer") for index in range(SEEN if count is None else min(count, SEEN))]
    asked = [prompt.columns.get("answer") for prompt in prompts]
    if not seen or None in seen or None in asked:
        return {}
    answers = Counter(map(str, seen))
    share = [answers[str(answer)] / len(seen) for answer in asked]
    place = {answer: at for at, (answer, _) in enumerate(answers.most_common())}
    found = {f"guess@{k}": mean_interval([1 - (1 - q) ** k for q in share]) for k in ks}
    return found | {f"commonest@{k}": mean_interval([float(place.get(str(answer), k) < k) for answer in asked]) for k in ks}
