"""Compare two models' stored answers to the same prompts with a judge. run/win_rate.py defines the win rate.

A judge is one of
    exact, my_reward.py:score, "{path: code, settings: {...}}"     a reward, named as in a recipe: scores each answer
    recipe.yaml            its gold rewards, else its training rewards
    runs/my-judge          a reward model: a run or a model's folder
    votes.jsonl            human votes on pairs of answers
With `in_pairs` a reward judges pairwise: score(prompt, response, other) is how much better `response`, shown first, is than `other`, from
0 (worse) to 1 (better).

Left out: an LLM judge; a reward file of yours can call one.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel import yaml

from ikusei.guard.outcomes import LEARNED, RewardSpec, too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.models.learned_reward import LearnedReward, RewardEnsemble, anew
from ikusei.models.load import load_tokenizer
from ikusei.recipe.find import find_recipe
from ikusei.recipe.reader import Document
from ikusei.recipe.schema import read_document, read_recipe
from ikusei.run.comparison import Experiment, must_be_alike, read_named
from ikusei.run.find import find_model
from ikusei.run.win_rate import TIE, PairVerdict, WinRate, of_numbers, of_votes, win_rate
from ikusei.types import Group, Message, Prompt, Response


def contest(one: str, other: str, judge: str, in_pairs: bool = False, tie: float = TIE, seed: int = 0) -> WinRate:
    """The win rate of `one` over `other`, both named as for `ikusei compare`. `seed` draws which order of each pair is judged first.

    Raises ValueError where prompts, template or sampling differ, `judge` is invalid or fails on most answers, or there is no verdict.
    """
    if not 0 <= tie < math.inf:
        raise ValueError(f"compare: got --tie {tie}; allowed: 0 or more, in units of the reward")
    if judge.endswith(".jsonl") and not Path(judge).is_file():
        raise ValueError(f"{judge}: no such file; allowed: a reward, a recipe, a reward model's folder, or a jsonl file of votes")
    if judge.endswith(".jsonl"):
        return win_rate(one, other, of_votes(Path(judge), one, other))
    a, b = read_named(one), read_named(other)
    must_be_alike(a, b)
    specs = read_judge(judge)
    if in_pairs and any(spec.learned for spec in specs):
        raise ValueError(f"{judge}: a reward model says a number for each answer and compares no two; leave out --in-pairs")
    verdicts, failed = _by_pairs(a, b, specs, seed) if in_pairs else _by_numbers(a, b, specs, tie)
    return win_rate(one, other, verdicts, failed)


def read_judge(judge: str) -> tuple[RewardSpec, ...]:
    """The rewards of a judge. Raises ValueError where it has none."""
    if Path(judge).is_dir():
        return (RewardSpec("judge", LEARNED, settings={"model": find_model(judge)}),)
    if judge.endswith((".yaml", ".yml")):
        rewards = read_recipe(find_recipe(judge)).rewards
    else:
        given = yaml.YAML(typ="safe").load(judge) if judge.startswith("{") else judge
        document = Document(Path("judge"), {"task": "arithmetic", "rewards": [given], "algorithm": "grpo"}, {(): 1})
        rewards = read_document(document).rewards
    gold = tuple(replace(spec, gold=False) for spec in rewards if spec.gold)
    if not rewards:
        raise ValueError(f"{judge}: a judge without rewards; allowed: one or more, for example --judge exact")
    return gold or rewards


def _by_numbers(one: Experiment, other: Experiment, specs: Sequence[RewardSpec], tie: float) -> tuple[list[PairVerdict], int]:
    rows = {prompt: (*one.answers[prompt], *other.answers[prompt]) for prompt in one.answers}
    groups = [Group(prompt_of(each[0]), tuple(map(response_of, each))) for each in rows.values()]
    verdicts, failed = [], 0
    for group, each in zip(_judged(groups, specs), rows.values(), strict=True):
        found = [(response.total, row["num_tokens"]) for response, row in zip(group.responses, each, strict=True)]
        first = len(one.answers[each[0]["prompt_id"]])
        known = [[(total, length) for total, length in part if total is not None] for part in (found[:first], found[first:])]
        failed += len(found) - sum(map(len, known))
        verdicts += of_numbers(group.prompt.id, known[0], known[1], tie)
    return verdicts, failed


def _by_pairs(one: Experiment, other: Experiment, specs: Sequence[RewardSpec], seed: int) -> tuple[list[PairVerdict], int]:
    """Pairs the two models' i-th answers to each prompt and judges each pair in both orders. In half of the pairs, drawn by the seed, the
    order that shows `one`'s answer first is judged first."""
    pairs = [pair for prompt in one.answers for pair in zip(one.answers[prompt], other.answers[prompt], strict=False)]
    begins = [index % 2 == 0 for index in range(len(pairs))]
    random.Random(seed).shuffle(begins)
    orders = [(pair, on_top) for pair, begin in zip(pairs, begins, strict=True) for on_top in (begin, not begin)]
    groups = []
    for (a, b), on_top in orders:
        top, below = (a, b) if on_top else (b, a)
        prompt = prompt_of(a)
        with_other = replace(prompt, columns={**prompt.columns, "other": below["response"]})
        groups.append(Group(with_other, (response_of(top),)))
    totals = [group.responses[0].total for group in _judged(groups, specs)]
    verdicts, failed = [], 0
    for (a, b), begin, values in zip(pairs, begins, zip(totals[::2], totals[1::2], strict=True), strict=True):
        lengths = (a["num_tokens"], b["num_tokens"])
        whole = [(value, on_top) for value, on_top in zip(values, (begin, not begin), strict=True) if value is not None]
        if len(whole) < 2:
            failed += 1
            continue
        verdicts += [PairVerdict(a["prompt_id"], value if on_top else 1 - value, on_top, lengths) for value, on_top in whole]
    return verdicts, failed


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """The prompt of a stored sample. Older versions stored only the column `answer`."""
    columns = json.loads(row["columns"]) if "columns" in row else {"answer": row["answer"]}
    asked = json.loads(row["asked"]) if "asked" in row else row["prompt"]
    return Prompt(row["prompt_id"], (), row["prompt"], columns, tuple(map(_message, asked)) if isinstance(asked, list) else asked)


def response_of(row: Mapping[str, Any]) -> Response:
    return Response((), (), row["response"], stop=row.get("stop", "eos"))


def _message(turn: Mapping[str, str]) -> Message:
    return Message(role=turn["role"], content=turn["content"])


def _judged(groups: Sequence[Group], specs: Sequence[RewardSpec]) -> list[Group]:
    learned = {spec.name: LearnedReward.read(spec.name, spec.settings) for spec in specs if spec.learned}
    if learned:
        tokenizer = load_tokenizer(next(iter(learned.values())).models[0])
        groups = [anew(tokenizer, group) for group in groups]
        judges = {name: RewardEnsemble(name, settings, tokenizer) for name, settings in learned.items()}
    else:
        judges = {}
    with RewardWorkers(specs, in_process=judges) as workers:
        scored = workers.score(groups)
    problem = too_many_failures(scored)
    if problem:
        raise ValueError(problem)
    return scored
