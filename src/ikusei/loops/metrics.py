"""Metrics of a step's sampled groups. Names are TRL's where TRL has the metric.

completions/repetition     1 - distinct / all n-grams of NGRAM tokens in a response, averaged over responses
completions/duplicates     share of responses whose exact text also answers another prompt of the step
reward/length              correlation of reward and length in tokens, both centred within the prompt
gold/agreement             the same of the training reward and the gold reward: do they rank responses alike?
advantage/effective        (sum |A|)^2 / (n sum A^2) over the n advantages that are not 0: 1 where all are equally large, near 0 where one
                           response dominates
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from statistics import fmean, pstdev

import numpy as np

from ikusei.forest import Forest, count
from ikusei.intervals import centred, correlation
from ikusei.protocols import Metrics
from ikusei.text.answer import split_thought
from ikusei.types import Group, Response

NGRAM = 8  # tokens


def describe(groups: Sequence[Group], num_kept: int, gold: Sequence[str] = ()) -> Metrics:
    """Rewards, lengths, thoughts and learning signal of all sampled groups, failed and skipped ones included. `gold` names the rewards
    that are not trained on."""
    responses = [response for group in groups for response in group.responses]
    totals = [r.total for r in responses if r.total is not None]
    metrics: Metrics = {**lengths(groups), "groups/kept": num_kept / len(groups)}
    metrics["completions/failed"] = 1 - len(totals) / len(responses)
    if totals:
        metrics |= {"reward": fmean(totals), "reward_std": pstdev(totals)}
    return metrics | _parts(responses) | _signal(groups) | thoughts(responses) | _same_again(groups) | _pays_for(groups, gold)


def lengths(groups: Sequence[Group]) -> Metrics:
    """Lengths of responses in tokens, and the share truncated at the limit."""
    responses = [response for group in groups for response in group.responses]
    ended = [len(r.tokens) for r in responses if r.stop != "length"]
    metrics = {
        "completions/mean_length": fmean(len(r.tokens) for r in responses),
        "completions/clipped_ratio": 1 - len(ended) / len(responses),
    }
    return {**metrics, "completions/mean_terminated_length": fmean(ended)} if ended else metrics


def _parts(responses: Sequence[Response]) -> Metrics:
    values: dict[str, list[float]] = {}
    for response in responses:
        for name, part in response.score.parts.items() if response.score else ():
            if part.value is not None:
                values.setdefault(name, []).append(part.value)
    means = {f"rewards/{name}/mean": fmean(v) for name, v in values.items()}
    return means | {f"rewards/{name}/std": pstdev(v) for name, v in values.items()}


def _signal(groups: Sequence[Group]) -> Metrics:
    """The shares of groups without reward variance: every reward 0 or less (too hard), or every reward above 0 (too easy)."""
    same = [set(group.without_failures().totals) for group in groups if group.responses]
    equal = [next(iter(totals)) for totals in same if len(totals) == 1]
    zero = sum(total <= 0 for total in equal)
    return {"groups/all_zero": zero / len(groups), "groups/all_full": (len(equal) - zero) / len(groups)}


def thoughts(responses: Sequence[Response]) -> Metrics:
    """Mean length of thoughts in characters, the shares of responses with an empty thought and with none; {} where no response has one."""
    split = [split_thought(response.text)[0] for response in responses]
    written = [thought for thought in split if thought is not None]
    if not written:
        return {}
    empty = sum(not thought for thought in written)
    return {
        "thoughts/mean_length": sum(map(len, written)) / len(split),
        "thoughts/empty": empty / len(split),
        "thoughts/none": 1 - len(written) / len(split),
    }


def _same_again(groups: Sequence[Group]) -> Metrics:
    """Repetition within a response, and across prompts."""
    long = [r.tokens for group in groups for r in group.responses if len(r.tokens) >= 2 * NGRAM]
    runs = [[tokens[i : i + NGRAM] for i in range(len(tokens) - NGRAM + 1)] for tokens in long]
    prompts_of: dict[str, set[str]] = {}
    for group in groups:
        for response in group.responses:
            prompts_of.setdefault(response.text, set()).add(group.prompt.id)
    again = [len(prompts_of[response.text]) > 1 for group in groups for response in group.responses]
    repeated = fmean(1 - len(set(each)) / len(each) for each in runs) if runs else 0.0
    return {"completions/repetition": repeated, "completions/duplicates": fmean(again)}


def _pays_for(groups: Sequence[Group], gold: Sequence[str]) -> Metrics:
    """Correlations of the reward within a prompt; a key is missing where one of the two does not vary."""
    rows = [
        (g, response.total, len(response.tokens), gold_of(response, gold))
        for g, group in enumerate(groups)
        for response in group.responses
        if response.total is not None
    ]
    if not rows:
        return {}
    group_R, total, length, judged = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    known = np.isfinite(judged)
    pairs = {"reward/length": (total, length, group_R), "gold/agreement": (total[known], judged[known], group_R[known])}
    found = {name: correlation(centred(a, g), centred(b, g)) for name, (a, b, g) in pairs.items() if len(g)}
    most = {"gold/most": float(judged[known].max())} if known.any() else {}
    return {name: value for name, value in found.items() if value is not None} | most


def gold_of(response: Response, gold: Sequence[str]) -> float | None:
    """The mean of the gold rewards; None where there are none or one of them failed."""
    values = [response.score.parts[name].value for name in gold] if response.score else []
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def of_forest(forest: Forest) -> Metrics:
    """Metrics of the credit: `sampling/importance_mean` and `advantage/effective`, where the forest has these streams."""
    weights = {"sampling/importance_mean": float(forest["importance_M"].mean())} if "importance_M" in forest.streams else {}
    return weights | effective_share(advantages(forest))


def advantages(forest: Forest) -> list[float]:
    """One for each response: its own, or the mean over its tokens; [] where the algorithm has no advantages."""
    if "advantage_R" in forest.streams:
        return forest["advantage_R"].tolist()
    if "advantage_M" in forest.streams:
        return (forest.sum_R(forest["advantage_M"]) / forest.length_R.clamp(min=1)).tolist()
    return []


def effective_share(advantages: Sequence[float]) -> Metrics:
    """`advantage/effective`; {} where all are 0."""
    sizes = [abs(each) for each in advantages if each]
    return {"advantage/effective": sum(sizes) ** 2 / sum(each**2 for each in sizes) / len(sizes)} if sizes else {}


def num_target_tokens(groups: Sequence[Group]) -> int:
    """The number of target tokens of these groups."""
    return int(count(groups).tokens)


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (1024 * 1024 if sys.platform == "darwin" else 1024)
