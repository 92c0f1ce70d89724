"""Held-out prompts with k worked examples in front: few-shot evaluation of any task that has gold answers.   arXiv:2005.14165

    by the chat template    user: q1, assistant: a1, ..., user: the question
    in raw text             form(q1) a1 <blank line> ... form(the question)          with form "Q: {prompt}\\nA:", say

The examples are training rows, drawn for each question from the seed alone. The gold answer of a row is its first response, or its column
`answer` where it has none.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ikusei.eval_metrics import answers
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.evaluate import EvalResult, EvalSettings, evaluate
from ikusei.loops.steps import StopRequest
from ikusei.protocols import Sampler, Task
from ikusei.text.chat import render
from ikusei.types import Example, Message, Prompt, Sampling, content_id

PLAIN = "{prompt}\n"  # the default form for a model without a chat template
PLENTY = 10_000  # of a generator without end, examples are drawn from so many training rows
SEEN = 512  # training rows whose gold answers give the chance baselines
TRIES = 1_000  # rows tried at most, to find distinct examples


def held_out(rows: Rows, count: int, shots: int = 0, form: str | None = None) -> list[Prompt]:
    """The first `count` test prompts with `shots` examples each. Raises ValueError where one does not fit the context, or has no answer."""
    prompts = rows.held_out_at(count)
    if shots == 0 and form is None:
        return list(prompts.values())
    form = form if form or rows.tokenizer.chat_template else PLAIN
    found = []
    for index, plain in prompts.items():
        row = rows.task.row("test", index)
        few_shot = _with_examples(row, examples(rows, index, shots), form)
        prompt = render(rows.tokenizer, replace(row, prompt=few_shot), "auto" if form is None else "none")
        if len(prompt.tokens) >= rows.context:
            raise ValueError(
                f"test row {index} with {shots} examples takes {len(prompt.tokens)} tokens and the context holds {rows.context}; "
                "ask with fewer eval.shots"
            )
        found.append(replace(prompt, id=plain.id))
    return found


def evaluate_with_shots(
    sampler: Sampler,
    rows: Rows,
    workers: RewardWorkers,
    settings: EvalSettings,
    sampling: Sampling,
    seed: int,
    stop: StopRequest | None = None,
) -> EvalResult:
    """`evaluate` without examples, and then the headline figures with each number of `settings.shots`: `3-shot/pass@1` and `3-shot/reward`,
    say. Raises ValueError where no row is held out."""
    prompts = [held_out(rows, settings.num_prompts, shots, settings.form) for shots in (0, *settings.shots)]
    if not prompts[0]:
        raise ValueError("eval: the task holds no row out; give it more rows or a larger test_share, or set eval.num_prompts: 0")
    zero = evaluate(sampler, prompts[0], workers, settings, sampling, seed, stop, seen=seen_answers(rows.task))
    results = dict(zero.results)
    for shots, each in zip(settings.shots, prompts[1:], strict=True):
        few = evaluate(sampler, each, workers, settings, sampling, seed, stop).results
        results |= {f"{shots}-shot/{figure.name}": few[figure.name] for figure in answers.FIGURES if figure.headline and figure.name in few}
    return EvalResult(results, zero.rows)


def seen_answers(task: Task) -> tuple[str, ...]:
    """Gold answers of the first training rows; () where one has none."""
    count = task.num_rows("train")
    gold = [task.row("train", index).columns.get("answer") for index in range(SEEN if count is None else min(count, SEEN))]
    return () if None in gold else tuple(map(str, gold))


def examples(rows: Rows, index: int, shots: int) -> list[Example]:
    """Training rows for the test row at `index`: distinct questions, none of them the test question."""
    limit = rows.task.num_rows("train")
    limit = PLENTY if limit is None else limit
    rng, question = Random(content_id("shots", rows.seed, index)), rows.task.row("test", index).prompt
    found: dict[object, Example] = {}
    for place in rng.sample(range(limit), min(limit, TRIES)):
        if len(found) == shots:
            break
        row = rows.task.row("train", place)
        if row.prompt != question:
            found.setdefault(row.prompt, row)
    if len(found) < shots:
        raise ValueError(f"{shots} examples asked for and {len(found)} different questions found; ask with fewer eval.shots")
    return list(found.values())


def gold(row: Example) -> str:
    """The gold answer of a row. Raises ValueError where it has none."""
    if row.responses and isinstance(row.responses[0], str):
        return row.responses[0]
    if "answer" not in row.columns:
        raise ValueError(f"eval.shots: the task's rows have no gold answer to show (a response, or a column `answer`): {row.prompt!r}")
    return str(row.columns["answer"])


def _with_examples(row: Example, shown: list[Example], form: str | None) -> str | tuple[Message, ...]:
    pairs = [(_question(example), gold(example)) for example in shown]
    if form is not None:
        worked = [f"{form.replace('{prompt}', question)}{answer}\n\n" for question, answer in pairs]
        return "".join(worked) + form.replace("{prompt}", _question(row))
    turns = [[Message(role="user", content=question), Message(role="assistant", content=answer)] for question, answer in pairs]
    return (*(turn for pair in turns for turn in pair), Message(role="user", content=_question(row)))


def _question(row: Example) -> str:
    if not isinstance(row.prompt, str):
        raise ValueError("eval.shots and eval.form: for prompts that are one question each; these are conversations; leave them out")
    return row.prompt
