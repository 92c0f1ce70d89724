"""The losses once more, as anybody would write them: transformers' own forward, one response at a time, padded [R, T] tensors and masks,
pairs and rankings in plain loops.

Everything is computed in float64, so that what is found to differ is the rounding of the library alone, or a mistake.

Nothing here is shared with the library but its records. A new algorithm adds its function to LOSSES.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from ikusei.algos.apo import APO
from ikusei.algos.bradley_terry import BradleyTerry
from ikusei.algos.cispo import CISPO
from ikusei.algos.dpo import DPO
from ikusei.algos.gdpo import GDPO
from ikusei.algos.grpo import GRPO
from ikusei.algos.gspo import GSPO
from ikusei.algos.hinge import Hinge
from ikusei.algos.ipo import IPO
from ikusei.algos.kto import KTO
from ikusei.algos.lm import LanguageModelling
from ikusei.algos.online_dpo import OnlineDPO
from ikusei.algos.orpo import ORPO
from ikusei.algos.plackett_luce import PlackettLuce
from ikusei.algos.ppo import PPO
from ikusei.algos.reinforce import Reinforce
from ikusei.algos.rloo import RLOO
from ikusei.algos.robust_dpo import RobustDPO
from ikusei.algos.simpo import SimPO
from ikusei.types import Group

Metrics = dict[str, float]


@dataclass(frozen=True)
class Plain:
    """Models as transformers makes them. `value` reads a value from a hidden state of `model`, or of `critic_body` where that is given."""

    model: PreTrainedModel
    reference: PreTrainedModel | None = None
    before: PreTrainedModel | None = None  # the policy before the step
    value: nn.Linear | None = None
    critic_body: nn.Module | None = None
    value_before: nn.Linear | None = None


@dataclass(frozen=True)
class Counts:
    """Of the whole step, groups that teach nothing included."""

    tokens: float
    responses: float
    pairs: float
    groups: float


@dataclass(frozen=True)
class Rows:
    """One row a response, [R, T] each, padded on the right."""

    logp: Tensor
    entropy: Tensor
    old: Tensor
    ref: Tensor
    mask: Tensor  # 1.0 where scored
    weight: Tensor  # [R, 1]
    totals: Counts
    value: Tensor
    old_value: Tensor
    other: Tensor  # log pi - log ref under another group's prompt

    def mean(self, x: Tensor) -> float:
        """Over the scored tokens of these rows, each counted once."""
        return float((x.float() * self.mask).sum().detach() / self.mask.sum())


class Float64(TorchFunctionMode):
    """Within it every number is in float64, those too for which transformers asks for float32 (norms, softmax, rotary angles)."""

    def __enter__(self) -> Float64:
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        torch.set_default_dtype(torch.float32)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        wide = lambda each: torch.float64 if each is torch.float32 else each  # noqa: E731
        func = Tensor.double if func is Tensor.float else func
        return func(*map(wide, args), **{name: wide(each) for name, each in (kwargs or {}).items()})


def plain_rows(model: PreTrainedModel, groups: Sequence[Group], temperature: float) -> list[tuple[Tensor, Tensor]]:
    """(log-prob of each token, entropy before it) for each response, by the whole model."""
    found = []
    for group in groups:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt.tokens, *response.tokens]])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(group.prompt.tokens) - 1 : -1] / temperature
            logp = torch.log_softmax(logits, -1)
            picked = logp[torch.arange(len(response.tokens)), torch.tensor(response.tokens)]
            found.append((picked, torch.distributions.Categorical(logits=logits).entropy()))
    return found


def plain_values(body: nn.Module, head: nn.Linear | None, groups: Sequence[Group]) -> list[Tensor]:
    """The value before each token of each response; zeros without a critic."""
    found = []
    for group in groups:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt.tokens, *response.tokens]])
            if head is None:
                found.append(torch.zeros(len(response.tokens)))
            else:
                hidden = body(input_ids=ids, use_cache=False).last_hidden_state[0, len(group.prompt.tokens) - 1 : -1]
                found.append(head(hidden)[:, 0])
    return found


def plain_rewards(model: PreTrainedModel, groups: Sequence[Group]) -> list[Tensor]:
    """The reward of each response, as transformers' classifier gives it, and what is added to it."""
    model.config.pad_token_id = None  # else it would look for the last token that is no padding
    rows = [[*group.prompt.tokens, *response.tokens] for group in groups for response in group.responses]
    return [model(input_ids=torch.tensor([row])).logits[0, 0] + model.config.reward_bias for row in rows]


def padded_rows(plain: Plain, groups: Sequence[Group], temperature: float, totals: Counts) -> Rows:
    logps, entropies = zip(*plain_rows(plain.model, groups, temperature), strict=True)
    values = plain_values(plain.critic_body or plain.model.base_model, plain.value, groups)
    responses = [response for group in groups for response in group.responses]
    nothing = [torch.zeros(len(response.tokens)) for response in responses]
    refs, others, old_values = nothing, nothing, nothing
    with torch.no_grad():
        if plain.reference is not None:
            refs = [logp for logp, _ in plain_rows(plain.reference, groups, temperature)]
        if plain.before is not None:
            old_values = plain_values(plain.before.base_model, plain.value_before, groups)
        if plain.before is not None and plain.reference is not None:
            turned = [Group(before.prompt, group.responses) for before, group in zip([groups[-1], *groups[:-1]], groups, strict=True)]
            pairs = zip(*(plain_rows(model, turned, temperature) for model in (plain.before, plain.reference)), strict=True)
            others = [mine - theirs for (mine, _), (theirs, _) in pairs]
    pad = lambda rows: pad_sequence(list(rows), batch_first=True)  # noqa: E731
    return Rows(
        logp=pad(logps),
        entropy=pad(entropies),
        old=pad(torch.tensor(r.logprobs) for r in responses),
        ref=pad(refs),
        mask=pad(torch.tensor(r.mask, dtype=torch.float32) for r in responses),
        weight=torch.tensor([[group.weight] for group in groups for _ in group.responses]),
        totals=totals,
        value=pad(values),
        old_value=pad(old_values),
        other=pad(others),
    )


def scores_of(groups: Sequence[Group]) -> list[Tensor]:
    return [torch.tensor([r.score.total for r in group.responses if r.score]) for group in groups]


def group_advantage(scale: str, groups: Sequence[Group]) -> Tensor:
    """[R, 1]."""
    scores = scores_of(groups)
    spreads = {"none": lambda _: 1.0, "group": lambda each: each.std() + 1e-4, "batch": lambda _: torch.cat(scores).std() + 1e-4}
    spread = spreads[scale]
    return torch.cat([(each - each.mean()) / spread(each) if len(each) > 1 else 0 * each for each in scores])[:, None]


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float, rows: Rows) -> tuple[Tensor, Metrics]:
    """What is to be lowered, and what is watched. Both [R, T] or [R, 1]."""
    free, held = ratio * advantage, torch.clip(ratio, 1 - low, 1 + high) * advantage
    too_low, too_high = (ratio < 1 - low) & (advantage < 0), (ratio > 1 + high) & (advantage > 0)
    watched = {"ratio": ratio, "clip_ratio/low_mean": too_low, "clip_ratio/high_mean": too_high}
    watched["clip_ratio/region_mean"] = too_low | too_high
    metrics = {name: rows.mean(x.expand_as(rows.mask)) for name, x in watched.items()}
    return -torch.where(free < held, free, held), {"entropy": rows.mean(rows.entropy), **metrics}


def grpo(algorithm: GRPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    advantage = group_advantage(algorithm.scale_rewards, groups)
    token, metrics = clipped(torch.exp(rows.logp - rows.old), advantage, algorithm.clip_low, algorithm.clip_high, rows)
    if algorithm.entropy_coef and algorithm.target_entropy is None:  # which begins with the second step
        token = token - algorithm.entropy_coef * rows.entropy
        metrics["entropy_coef"] = algorithm.entropy_coef
    if algorithm.kl_coef > 0:
        ahead = rows.logp - rows.ref
        half_square = 0.5 * ahead**2
        kl = {
            "k1": ahead.detach() + half_square - half_square.detach(),
            "k2": half_square,
            "k3": torch.exp(-ahead) - 1 + ahead,
        }[algorithm.kl_estimator]
        token = token + algorithm.kl_coef * kl
        metrics["kl"] = rows.mean(kl)
    token = token * rows.weight * rows.mask
    if algorithm.aggregate == "token":
        return token.sum() / rows.totals.tokens, metrics
    return (token.sum(1) / rows.mask.sum(1).clip(min=1)).sum() / rows.totals.responses, metrics


def gspo(algorithm: GSPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    ratio = torch.exp(((rows.logp - rows.old) * rows.mask).sum(1) / rows.mask.sum(1).clip(min=1))[:, None]
    advantage = group_advantage(algorithm.scale_rewards, groups)
    response, metrics = clipped(ratio, advantage, algorithm.clip_low, algorithm.clip_high, rows)
    return (response * rows.weight * rows.mask.amax(1, keepdim=True)).sum() / rows.totals.responses, metrics


def cispo(algorithm: CISPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    ratio = torch.exp(rows.logp - rows.old).detach()
    held = torch.clip(ratio, algorithm.ratio_low, algorithm.ratio_high)
    token = held * group_advantage(algorithm.scale_rewards, groups) * rows.logp * rows.weight * rows.mask
    watched = {"entropy": rows.entropy, "ratio": ratio, "clip_ratio/region_mean": ratio != held}
    return -token.sum() / rows.totals.tokens, {name: rows.mean(x) for name, x in watched.items()}


def gdpo(algorithm: GDPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    sums = []
    for group in groups:
        mixed = torch.zeros(len(group.responses))
        for name in ("first", "second"):
            told = {i: r.score.terms[name] for i, r in enumerate(group.responses) if r.score and name in r.score.terms}
            if len(told) > 1:
                values = torch.tensor([term.value for term in told.values()])
                weight = next(iter(told.values())).weight
                mixed[list(told)] += weight * (values - values.mean()) / (values.std() + 1e-4)
        sums.append(mixed)
    whole = torch.cat(sums)
    advantage = ((whole - whole.mean()) / (whole.std() + 1e-4))[:, None]
    token, metrics = clipped(torch.exp(rows.logp - rows.old), advantage, algorithm.clip_low, algorithm.clip_high, rows)
    return (token * rows.weight * rows.mask).sum() / rows.totals.tokens, metrics


def rloo(algorithm: RLOO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    kl = ((rows.old - rows.ref) * rows.mask).sum(1)
    advantages, first = [], 0
    for scores in scores_of(groups):
        earned = scores - algorithm.kl_coef * kl[first : first + len(scores)]
        advantages += [earned[i] - torch.cat([earned[:i], earned[i + 1 :]]).mean() for i in range(len(earned))]
        first += len(scores)
    ratio = torch.exp(((rows.logp - rows.old) * rows.mask).sum(1))[:, None]
    response, metrics = clipped(ratio, torch.stack(advantages)[:, None], algorithm.clip_low, algorithm.clip_high, rows)
    if algorithm.kl_coef > 0:
        metrics["kl"] = rows.mean(rows.old - rows.ref)
    return (response * rows.weight * rows.mask.amax(1, keepdim=True)).sum() / rows.totals.responses, metrics


def reinforce(algorithm: Reinforce, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    earned = torch.cat([scores - scores.mean() if algorithm.baseline else scores for scores in scores_of(groups)])[:, None]
    behind = -algorithm.kl_coef * (rows.old - rows.ref) * rows.mask
    to_come = behind.flip(1).cumsum(1).flip(1)
    advantage = (earned + to_come).expand_as(rows.mask)
    mean = (advantage * rows.mask).sum() / rows.mask.sum()
    spread = (((advantage - mean) ** 2 * rows.mask).sum() / rows.mask.sum() + 1e-8) ** 0.5
    ratio = torch.exp(rows.logp - rows.old)
    token, metrics = clipped(ratio, (advantage - mean) / spread, algorithm.clip_low, algorithm.clip_high, rows)
    if algorithm.kl_coef > 0:
        metrics["kl"] = rows.mean(rows.old - rows.ref)
    return (token * rows.weight * rows.mask).sum() / rows.totals.tokens, metrics


def language_modelling(algorithm: LanguageModelling, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    return -(rows.logp * rows.mask * rows.weight).sum() / rows.totals.tokens, {"entropy": rows.mean(rows.entropy)}


# ------------------------------------------------------------------------------------------------------------------ pairs


@dataclass(frozen=True)
class Side:
    """One response of a pair: log pi, log pi - log ref, and how many tokens of it are scored."""

    logp: Tensor
    ahead: Tensor
    length: int


def wins(x: Tensor | float) -> Tensor:
    """-log sigmoid(x)."""
    return torch.log(1 + torch.exp(-torch.as_tensor(x)))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def log_odds(side: Side) -> Tensor:
    p = torch.exp(side.logp / side.length)
    return torch.log(p / (1 - p))


def dpo(a: DPO, w: Side, l: Side) -> Tensor:
    per = (w.length, l.length) if a.per_token else (1, 1)
    h = a.beta * (w.ahead / per[0] - l.ahead / per[1]) + a.length_coef * (w.length - l.length)
    return (1 - a.label_smoothing) * wins(h) + a.label_smoothing * wins(-h) - a.nll_coef * w.logp / w.length


def robust_dpo(a: RobustDPO, w: Side, l: Side) -> Tensor:
    h = a.beta * (w.ahead - l.ahead)
    return ((1 - a.flip_rate) * wins(h) - a.flip_rate * wins(-h)) / (1 - 2 * a.flip_rate)


def ipo(a: IPO, w: Side, l: Side) -> Tensor:
    h = w.ahead / w.length - l.ahead / l.length if a.per_token else w.ahead - l.ahead
    return (h - 1 / (2 * a.tau)) ** 2


def hinge(a: Hinge, w: Side, l: Side) -> Tensor:
    h = 1 - a.beta * (w.ahead - l.ahead)
    return h if h > 0 else 0 * h


def apo(a: APO, w: Side, l: Side) -> Tensor:
    if a.kind == "zero":
        return 1 - sigmoid(a.beta * w.ahead) + sigmoid(a.beta * l.ahead)
    return sigmoid(a.beta * w.ahead) + 1 - sigmoid(a.beta * (w.ahead - l.ahead))


def simpo(a: SimPO, w: Side, l: Side) -> Tensor:
    return wins(a.beta * (w.logp / w.length - l.logp / l.length) - a.gamma)


def orpo(a: ORPO, w: Side, l: Side) -> Tensor:
    return -w.logp / w.length + a.coef * wins(log_odds(w) - log_odds(l))


Reward = Callable[[Any, Side], Tensor]
Cost = Callable[[Any, Side, Side], Tensor]
Whole = Callable[[Any, Sequence[Group], Any], tuple[Tensor, Metrics]]


def of_pairs(reward: Reward, cost: Cost) -> Whole:
    """The mean of `cost` over all pairs of the step."""

    def whole(algorithm: Any, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
        sides = sides_of(rows)
        loss, seen, first = torch.zeros(()), {}, 0
        for group in groups:
            mine, first = sides[first : first + len(group.responses)], first + len(group.responses)
            for i, j in ranked_pairs(group):
                w, l = mine[i], mine[j]
                loss = loss + group.weight * cost(algorithm, w, l)
                won, lost = (float(reward(algorithm, side).detach()) for side in (w, l))
                rewards = {"chosen": won, "rejected": lost, "margins": won - lost, "accuracies": float(won > lost)}
                said = {f"rewards/{name}": x for name, x in rewards.items()}
                for name, x in {**said, "logps/chosen": float(w.logp.detach()), "logps/rejected": float(l.logp.detach())}.items():
                    seen[name] = seen.get(name, 0.0) + x / rows.totals.pairs
        return loss / rows.totals.pairs, seen

    return whole


def sides_of(rows: Rows) -> list[Side]:
    sums = [(x * rows.mask).sum(1) for x in (rows.logp, rows.logp - rows.ref, torch.ones_like(rows.logp))]
    return [Side(logp, ahead, max(1, int(length))) for logp, ahead, length in zip(*sums, strict=True)]


def ranked_pairs(group: Group) -> list[tuple[int, int]]:
    """(better, worse), from every two responses."""
    tiers = group.tiers or (0,) * len(group.responses)
    every = [(i, j) if tiers[i] < tiers[j] else (j, i) for i, j in combinations(range(len(tiers)), 2)]
    return [(i, j) for i, j in every if tiers[i] != tiers[j]]


def by_worth(groups: Sequence[Group]) -> list[Group]:
    """Ranked by what each answer earned: in the first tier is what nothing in the group beats."""
    every = [[total.item() for total in totals] for totals in scores_of(groups)]
    tiers = [tuple(sum(other > mine for other in set(totals)) for mine in totals) for totals in every]
    return [replace(group, tiers=each) for group, each in zip(groups, tiers, strict=True)]


def online_dpo(algorithm: OnlineDPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    offline: Whole = LOSSES[DPO]
    loss, metrics = offline(DPO(beta=algorithm.beta), groups, rows)
    return loss, {**metrics, "entropy": rows.mean(rows.entropy)}


def kto(algorithm: KTO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    sides, z = sides_of(rows), float((rows.other * rows.mask).sum(1).mean())
    z = z if z > 0 else 0.0
    good: list[bool] = []
    for group in groups:
        labels = [response.label for response in group.responses]
        best = min(group.tiers) if group.tiers else None
        tiers = group.tiers or (None,) * len(labels)
        good += [tier == best if label is None else label > 0 for label, tier in zip(labels, tiers, strict=True)]
    loss = torch.zeros(())
    means: dict[str, list[float]] = {"rewards/chosen": [], "rewards/rejected": [], "logps/chosen": [], "logps/rejected": []}
    for side, liked, weight in zip(sides, good, rows.weight[:, 0].tolist(), strict=True):
        ahead = algorithm.beta * (side.ahead - z)
        care = algorithm.desirable_weight if liked else algorithm.undesirable_weight
        loss = loss + weight * care * (1 - sigmoid(ahead if liked else -ahead))
        kind = "chosen" if liked else "rejected"
        means[f"rewards/{kind}"].append(algorithm.beta * float(side.ahead.detach()))
        means[f"logps/{kind}"].append(float(side.logp.detach()))
    metrics = {name: sum(values) / len(values) for name, values in means.items()}
    metrics |= {"rewards/margins": metrics["rewards/chosen"] - metrics["rewards/rejected"], "kl": z * len(good) / rows.totals.responses}
    return loss / rows.totals.responses, metrics


# ------------------------------------------------------------------------------------------------------------------ reward models


@dataclass(frozen=True)
class Rewards:
    """What a reward model said of each response, group by group."""

    by_group: list[list[Tensor]]
    totals: Counts

    def metrics(self, groups: Sequence[Group]) -> Metrics:
        ahead = [float((r[i] - r[j]).detach()) for r, group in zip(self.by_group, groups, strict=True) for i, j in ranked_pairs(group)]
        mean = sum(float(x.detach()) for r in self.by_group for x in r) / self.totals.responses
        return {"accuracy": sum(a > 0 for a in ahead) / self.totals.pairs, "margin": sum(ahead) / self.totals.pairs, "mean_reward": mean}


def bradley_terry(algorithm: BradleyTerry, groups: Sequence[Group], said: Rewards) -> tuple[Tensor, Metrics]:
    loss = torch.zeros(())
    for group, r in zip(groups, said.by_group, strict=True):
        assert group.tiers is not None
        costs = []
        for i, j in combinations(range(len(r)), 2):
            if group.tiers[i] == group.tiers[j] and algorithm.ties == "drop":
                continue
            if group.tiers[i] == group.tiers[j]:
                cost = (wins(r[i] - r[j]) + wins(r[j] - r[i])) / 2
            else:
                ahead = r[i] - r[j] if group.tiers[i] < group.tiers[j] else r[j] - r[i]
                cost = wins(ahead - (0 if group.margin is None else group.margin))
            costs.append(cost + algorithm.center_coef * (r[i] + r[j]) ** 2)
        loss = loss + group.weight * sum(costs) / len(costs)
    return loss / said.totals.groups, said.metrics(groups)


def plackett_luce(algorithm: PlackettLuce, groups: Sequence[Group], said: Rewards) -> tuple[Tensor, Metrics]:
    loss = torch.zeros(())
    for group, r in zip(groups, said.by_group, strict=True):
        assert group.tiers is not None
        for tier in sorted(set(group.tiers))[:-1]:
            left = torch.stack([x for x, t in zip(r, group.tiers, strict=True) if t >= tier])
            for x, t in zip(r, group.tiers, strict=True):
                if t == tier:
                    loss = loss - group.weight * torch.log(torch.exp(x) / torch.exp(left).sum())
    return loss / said.totals.groups, said.metrics(groups)


# ------------------------------------------------------------------------------------------------------------------ PPO


def ppo(algorithm: PPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    """Advantages as the sum that the recursion stands for: A_t = sum_k (gamma lambda)^k delta_{t+k}."""
    on = [mask.bool() for mask in rows.mask]
    responses = [response for group in groups for response in group.responses]
    rewards, penalties = [], []
    for response, old, ref, mask in zip(responses, rows.old, rows.ref, on, strict=True):
        penalty = algorithm.kl_coef * (ref - old)[mask]
        score = response.score.total if response.score else None
        if response.stop == "length" and algorithm.missing_eos_score is not None:
            score = algorithm.missing_eos_score
        rewards.append(penalty.clone())
        penalties.append(penalty)
        if len(penalty):
            rewards[-1][-1] += score
    if algorithm.whiten_rewards:
        every = torch.cat(rewards)
        rewards = [(r - every.mean()) / torch.sqrt(torch.var(every, correction=0) + 1e-8) + every.mean() for r in rewards]
    advantages, returns = [], []
    for r, values, mask in zip(rewards, rows.old_value, on, strict=True):
        v = torch.cat([values[mask], torch.zeros(1)])
        delta = [r[t] + algorithm.gamma * v[t + 1] - v[t] for t in range(len(r))]
        fade = algorithm.gamma * algorithm.gae_lambda
        sums = [sum(fade ** (k - t) * delta[k] for k in range(t, len(r))) for t in range(len(r))]
        advantages.append(torch.tensor(sums))
        returns.append(torch.tensor(sums) + v[:-1])
    every = torch.cat(advantages)
    white = [(a - every.mean()) / torch.sqrt(torch.var(every, correction=0) + 1e-8) for a in advantages]
    return ppo_loss(algorithm, rows, placed(white, on, rows), placed(returns, on, rows), placed(penalties, on, rows))


def placed(flat: Sequence[Tensor], on: Sequence[Tensor], rows: Rows) -> Tensor:
    """[R, T], each response's numbers at its scored tokens."""
    whole = torch.zeros_like(rows.mask)
    for row, mask, values in zip(whole, on, flat, strict=True):
        row[mask] = values
    return whole


def ppo_loss(algorithm: PPO, rows: Rows, advantage: Tensor, returns: Tensor, penalty: Tensor) -> tuple[Tensor, Metrics]:
    ratio, low, high = torch.exp(rows.logp - rows.old), 1 - algorithm.clip, 1 + algorithm.clip
    free, held = -ratio * advantage, -torch.clip(ratio, low, high) * advantage
    far = torch.clip(rows.value, rows.old_value - algorithm.clip_value, rows.old_value + algorithm.clip_value)
    near, far = (rows.value - returns) ** 2, (far - returns) ** 2
    mean = lambda x: (x * rows.mask * rows.weight).sum() / rows.totals.tokens  # noqa: E731
    policy, value = mean(torch.where(free > held, free, held)), 0.5 * mean(torch.where(near > far, near, far))
    too_low, too_high = (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)
    behind = rows.ref - rows.logp
    metrics = {
        "entropy": rows.mean(rows.entropy), "ratio": rows.mean(ratio), "clip_ratio/low_mean": rows.mean(too_low),
        "clip_ratio/high_mean": rows.mean(too_high), "clip_ratio/region_mean": rows.mean(too_low | too_high),
        "clip_ratio/value": rows.mean(far > near), "kl": rows.mean(torch.exp(behind) - 1 - behind),
        "loss/policy": float(policy.detach()), "loss/value": float(value.detach()),
        "objective/kl": float(((rows.old - rows.ref) * rows.mask).sum() / rows.totals.responses),
        "objective/non_score_reward": float(penalty.sum() / rows.totals.responses), "episodes": float(len(rows.mask)),
    }  # fmt: skip
    return policy + algorithm.vf_coef * value, metrics


LOSSES: dict[type, Whole] = {
    GRPO: grpo,
    GSPO: gspo,
    CISPO: cispo,
    GDPO: gdpo,
    RLOO: rloo,
    Reinforce: reinforce,
    LanguageModelling: language_modelling,
    DPO: of_pairs(lambda a, side: a.beta * side.ahead / (side.length if a.per_token else 1), dpo),
    RobustDPO: of_pairs(lambda a, side: a.beta * side.ahead, robust_dpo),
    IPO: of_pairs(lambda a, side: a.tau * side.ahead / (side.length if a.per_token else 1), ipo),
    Hinge: of_pairs(lambda a, side: a.beta * side.ahead, hinge),
    APO: of_pairs(lambda a, side: a.beta * side.ahead, apo),
    SimPO: of_pairs(lambda a, side: a.beta * side.logp / side.length, simpo),
    ORPO: of_pairs(lambda a, side: a.coef * side.logp / side.length, orpo),
    OnlineDPO: online_dpo,
    KTO: kto,
    BradleyTerry: bradley_terry,
    PlackettLuce: plackett_luce,
    PPO: ppo,
}


def counted(groups: Sequence[Group]) -> Counts:
    responses = [response for group in groups for response in group.responses]
    tokens, pairs = sum(sum(response.mask) for response in responses), sum(len(ranked_pairs(group)) for group in groups)
    return Counts(float(tokens), float(len(responses)), float(pairs), float(len(groups)))


def padded_step(
    plain: Plain, algorithm: Any, groups: Sequence[Group], temperature: float, whole: Sequence[Group] | None = None
) -> tuple[Metrics, dict[str, Tensor]]:
    """In float64: metrics, the loss among them, and every gradient. `whole` are all groups of the step, where some of them are not
    computed. The models are changed to float64."""
    for module in (plain.model, plain.reference, plain.before, plain.value, plain.critic_body, plain.value_before):
        if module is not None:
            module.double()
        if isinstance(module, PreTrainedModel):
            module.set_experts_implementation("eager")  # the others are products that torch has not in float64
    with Float64():
        return _padded_step(plain, algorithm, groups, temperature, whole)


def _padded_step(
    plain: Plain, algorithm: Any, groups: Sequence[Group], temperature: float, whole: Sequence[Group] | None
) -> tuple[Metrics, dict[str, Tensor]]:
    if isinstance(algorithm, OnlineDPO):
        groups, whole = by_worth(groups), by_worth(whole or groups)
    totals, trained = counted(whole or groups), dict(plain.model.named_parameters())
    critic = {"head": plain.value, "body": plain.critic_body}
    trained |= {f"critic.{part}.{name}": p for part, module in critic.items() if module for name, p in module.named_parameters()}
    if "reward" in algorithm.needs:
        said = iter(plain_rewards(plain.model, groups))
        seen: Any = Rewards([[next(said) for _ in group.responses] for group in groups], totals)
    else:
        seen = padded_rows(plain, groups, temperature, totals)
    loss, metrics = LOSSES[type(algorithm)](algorithm, groups, seen)
    learning = {name: p for name, p in trained.items() if p.requires_grad}
    found = dict(zip(learning, torch.autograd.grad(loss, list(learning.values()), allow_unused=True), strict=True))
    grads = {name: torch.zeros_like(p) if found.get(name) is None else found[name] for name, p in trained.items()}
    assert math.isfinite(float(loss.detach()))
    return {"loss": float(loss.detach()), **metrics}, grads
