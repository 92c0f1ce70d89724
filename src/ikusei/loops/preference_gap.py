"""How far off-policy preference data is, measured before training.

    gap        mean log p(t) of the policy's own samples  -  mean log p(t) of the data's responses      nats per token, mean over
               responses, for chosen and for rejected ones. 0 on average for on-policy data at temperature 1; below 0 where the data is
               the likelier part of the policy's samples, as correct answers are
    outdone    share of prompts for which the policy's own sample has a higher reward than the chosen response

On far off-policy pairs the loss mostly lowers responses that the policy never samples: the margin grows, its samples hardly change. From
chosen responses that are worse than its own samples the policy learns to be worse (arXiv:2408.06266). How held-out log-probs change during
training is in the report (eval_metrics/rows.py: likelihood displacement, arXiv:2410.08847).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from ikusei.eval_metrics import rows
from ikusei.eval_metrics.metric import measure
from ikusei.eval_metrics.rows import Gaps
from ikusei.forest import plant
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import Interval
from ikusei.loops.order import in_order
from ikusei.loops.precompute import along_M
from ikusei.protocols import Policy
from ikusei.types import Group, Response, Sampling

FAR = 1.0  # nats per token: the data's tokens are e times less likely than the policy's own
OUTDONE = 0.5


def preference_gap(
    policy: Policy, groups: Sequence[Group], sampling: Sampling, seed: int, tokens_per_microbatch: int, workers: RewardWorkers | None
) -> dict[str, Interval]:
    """The figures above, from one sample for each prompt of a pair, from the untruncated distribution; {} where no row has a pair."""
    pairs = [replace(group, prompt=replace(group.prompt, id=f"{group.prompt.id}/{n}")) for n, group in enumerate(groups) if group.pairs]
    if not pairs:
        return {}
    prompts = [group.prompt for group in pairs]
    whole = replace(sampling, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    own = in_order(prompts, list(policy.snapshot().sample(prompts, 1, whole, seed)))
    data = list(zip(pairs, _per_token(policy, pairs, tokens_per_microbatch), strict=True))
    gaps = Gaps(
        own=[logps[0] for logps in _per_token(policy, own, tokens_per_microbatch)],
        chosen=[_mean_of_tier(group, logps, min(group.tiers or (0,))) for group, logps in data],
        rejected=[_mean_of_tier(group, logps, max(group.tiers or (0,))) for group, logps in data],
        outdone=_outdone(pairs, own, workers) if workers is not None else [],
    )
    return measure(rows.FIGURES, gaps)


def advice(figures: Mapping[str, Interval]) -> str | None:
    """A recommendation where the data is off-policy or worse than the policy's samples; else None."""
    advised = []
    gap, outdone = figures.get("gap/chosen"), figures.get("outdone")
    if gap is not None and gap.low > FAR:
        advised.append(
            f"the log-prob gap of the chosen answers to the model's own samples is {gap.value:.1f} nats per token: they come from "
            "elsewhere. Make pairs of its own answers (collect: {kind: pairs}), or fine-tune it on the chosen ones first (algorithm: lm)"
        )
    if outdone is not None and outdone.low > OUTDONE:
        advised.append(
            f"for {outdone.value:.0%} of the prompts its own sample has a higher reward than the chosen answer: make pairs of its own "
            "answers, or lower both (algorithm: {name: apo, kind: down})"
        )
    return "; ".join(advised) or None


def _per_token(policy: Policy, groups: Sequence[Group], tokens_per_microbatch: int) -> list[list[float]]:
    """For each group, the mean log-prob of each response's target tokens."""
    forest = plant(groups)
    mean_R = forest.sum_R(along_M(policy, forest, tokens_per_microbatch)) / forest.length_R.clamp(min=1)
    logps = iter(mean_R.tolist())
    return [[next(logps) for _ in group.responses] for group in groups]


def _mean_of_tier(group: Group, logps: Sequence[float], tier: int) -> float:
    assert group.tiers is not None, "a group with pairs is ranked"
    return fmean(logp for logp, each in zip(logps, group.tiers, strict=True) if each == tier)


def _outdone(pairs: Sequence[Group], own: Sequence[Group], workers: RewardWorkers) -> list[float]:
    """1 where the policy's sample has the higher reward, 1/2 where both are equal; prompts whose rewards failed are left out."""
    chosen = [_best(group) for group in pairs]
    compared = [Group(group.prompt, (mine.responses[0], best)) for group, mine, best in zip(pairs, own, chosen, strict=True)]
    totals = [[response.total for response in group.responses] for group in workers.score(compared)]
    return [0.5 if mine == best else float(mine > best) for mine, best in totals if mine is not None and best is not None]


def _best(group: Group) -> Response:
    assert group.tiers is not None, "a group with pairs is ranked"
    return group.responses[group.tiers.index(min(group.tiers))]
