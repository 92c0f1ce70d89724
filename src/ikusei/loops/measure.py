"""A step's sampled groups in numbers, under the names that TRL's users know where there are such names."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from statistics import fmean, pstdev

from ikusei.forest import count
from ikusei.protocols import Metrics
from ikusei.text.answer import split_thought
from ikusei.types import Group, Response


def describe(groups: Sequence[Group], num_kept: int) -> Metrics:
    """Rewards, lengths, thoughts and signal of all groups that were asked for, failed and skipped ones included."""
    responses = [response for group in groups for response in group.responses]
    totals = [r.total for r in responses if r.total is not None]
    metrics: Metrics = {**lengths(groups), "groups/kept": num_kept / len(groups)}
    if totals:
        metrics |= {"reward": fmean(totals), "reward_std": pstdev(totals)}
    return metrics | _parts(responses) | _signal(groups) | thoughts(responses)


def lengths(groups: Sequence[Group]) -> Metrics:
    """Of answers, in tokens, and the share that was cut off."""
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
    """The shares of groups that teach nothing because every answer earned the same: nothing (too hard), or something (too easy)."""
    same = [set(group.without_failures().totals) for group in groups if group.responses]
    equal = [next(iter(totals)) for totals in same if len(totals) == 1]
    zero = sum(total <= 0 for total in equal)
    return {"groups/all_zero": zero / len(groups), "groups/all_full": (len(equal) - zero) / len(groups)}


def thoughts(responses: Sequence[Response]) -> Metrics:
    """Length of thoughts in characters, the share of answers whose thought is empty, and of those without any; {} where nobody thinks."""
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


def scored_tokens(groups: Sequence[Group]) -> int:
    """How many tokens of these groups are scored."""
    return int(count(groups).tokens)


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (1024 * 1024 if sys.platform == "darwin" else 1024)
