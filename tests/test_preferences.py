"""Preferences, reward models and PPO by hand: made-up outputs, numbers that are not symmetric, and the golden vectors of the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ikusei.algos.apo import APO
from ikusei.algos.bradley_terry import BradleyTerry
from ikusei.algos.dpo import DPO
from ikusei.algos.hinge import Hinge
from ikusei.algos.ipo import IPO
from ikusei.algos.kto import KTO
from ikusei.algos.online_dpo import OnlineDPO
from ikusei.algos.orpo import ORPO
from ikusei.algos.plackett_luce import PlackettLuce
from ikusei.algos.ppo import PPO
from ikusei.algos.robust_dpo import RobustDPO
from ikusei.algos.simpo import SimPO
from ikusei.forest import Forest, Loss, Outputs, count, plant
from ikusei.maths import gae, log_odds, preference_loss, whiten
from ikusei.protocols import credited, first_state
from ikusei.types import Group, Prompt, Response, Score, Stop

LN2 = math.log(2)
PAIR = (-10.0, -12.0), (-11.0, -11.5), (10, 12)  # log pi, log ref and lengths of chosen and rejected: h = 1.5


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def ranked(tiers: Sequence[int] | None, lengths: Sequence[int], **more: Any) -> Group:
    """A ranking whose responses have these lengths, all scored."""
    responses = tuple(Response(tuple(range(3, 3 + n)), (True,) * n, "") for n in lengths)
    return Group(Prompt("p", (1, 2), "a question"), responses, tiers=None if tiers is None else tuple(tiers), **more)


def spread(sums: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """Unequal numbers for the tokens of each response, with these sums."""
    return [2 * total * (t + 1) / (n * (n + 1)) for total, n in zip(sums, lengths, strict=True) for t in range(n)]


def said(logp_M: Sequence[float]) -> Outputs:
    return Outputs(torch.tensor(logp_M, requires_grad=True), torch.full((len(logp_M),), 2.0))


def of_pairs(algorithm: Any, groups: Sequence[Group], logps: Sequence[float], refs: Sequence[float]) -> tuple[Loss, Tensor]:
    """The loss, and its gradient for each response (the sum over its tokens)."""
    lengths = [len(response.tokens) for group in groups for response in group.responses]
    forest = plant(groups).with_streams({"ref_logp_M": torch.tensor(spread(refs, lengths))})
    forest = credited(algorithm, groups, forest, first_state(algorithm))
    out = said(spread(logps, lengths))
    loss = algorithm.loss(out, forest)
    (slope_M,) = torch.autograd.grad(loss.value, out.logp_M)
    return loss, forest.sum_R(slope_M)


def of_rewards(algorithm: Any, groups: Sequence[Group], rewards: Sequence[float]) -> tuple[Loss, list[float]]:
    """The loss of a reward model, and its gradient for each response."""
    forest = plant(groups)
    forest = forest.with_streams(algorithm.credit(groups, forest, {}))
    reward_R = torch.tensor(rewards, requires_grad=True)
    loss = algorithm.loss(Outputs(torch.empty(0), torch.empty(0), reward_R=reward_R), forest)
    (slope_R,) = torch.autograd.grad(loss.value, reward_R)
    return loss, slope_R.tolist()


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (DPO(beta=0.1), 0.620957),
        (DPO(beta=0.1, label_smoothing=0.1), 0.635957),
        (DPO(beta=0.1, per_token=True), 0.686089),
        (DPO(beta=0.1, nll_coef=0.5), 0.620957 + 0.5 * 1.0),  # 10 nats over 10 tokens
        (DPO(beta=0.1, length_coef=0.05), math.log1p(math.exp(-(0.15 + 0.05 * (10 - 12))))),
        (RobustDPO(beta=0.1, flip_rate=0.1), 0.602207),
        (Hinge(beta=0.1), 0.85),
        (IPO(tau=0.1), 12.25),
        (IPO(tau=0.1, per_token=True), 23.603403),
        (APO(beta=0.1, kind="zero"), 1 - sigmoid(0.1) + sigmoid(-0.05)),
        (APO(beta=0.1, kind="down"), sigmoid(0.1) + 1 - sigmoid(0.15)),
        (SimPO(beta=2.0, gamma=1.0), 1.313262),  # both have -1 a token
        (SimPO(beta=2.0, gamma=0.5), math.log1p(math.exp(0.5))),
    ],
)
def test_golden_pairs(algorithm: Any, expected: float) -> None:
    loss, _ = of_pairs(algorithm, [ranked((0, 1), PAIR[2])], *PAIR[:2])
    assert float(loss.value.detach()) == pytest.approx(expected, rel=2e-6)


def test_orpo() -> None:
    """Log-probs of -1 and -1.2 a token: the log odds differ by 0.300293."""
    odds = log_odds(torch.tensor([-1.0, -1.2]))
    assert float(odds[0] - odds[1]) == pytest.approx(0.300293, abs=1e-6)
    loss, _ = of_pairs(ORPO(coef=0.3), [ranked((0, 1), (4, 5))], (-4.0, -6.0), (0.0, 0.0))
    assert float(loss.value.detach()) == pytest.approx(1.0 + 0.3 * 0.554231, rel=2e-6)
    assert float(loss.metrics["rewards/chosen"]) == pytest.approx(-0.3)


def test_log_odds_near_certainty() -> None:
    """log(1 - p) keeps its digits where p is near 1, and where p is 1 to rounding nothing is infinite."""
    logp = torch.tensor([-1e-4, -1e-6, 0.0, -40.0], requires_grad=True)
    odds = log_odds(logp)
    exact = [-1e-4 - math.log(-math.expm1(-1e-4)), -1e-6 - math.log(-math.expm1(-1e-6)), 7 * math.log(10), -40.0]
    assert odds.tolist() == pytest.approx(exact, rel=1e-6)
    (slope,) = torch.autograd.grad(odds.sum(), logp)
    assert slope.tolist() == pytest.approx([1 / -math.expm1(-1e-4), 1 / -math.expm1(-1e-6), 0.0, 1.0], rel=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "chosen", "rejected"),
    [
        (DPO(beta=0.1), -0.1 * 0.46257, 0.1 * 0.46257),
        (DPO(beta=0.1, label_smoothing=0.4), -0.1 * (0.6 * 0.46257 - 0.4 * 0.53743), 0.1 * (0.6 * 0.46257 - 0.4 * 0.53743)),
        (DPO(beta=0.1, nll_coef=2.0), -0.1 * 0.46257 - 2.0 / 10, 0.1 * 0.46257),
        (Hinge(beta=0.1), -0.1, 0.1),
        (Hinge(beta=2.0), 0.0, 0.0),  # beta h = 3: won already
        (IPO(tau=0.1), 2 * (1.5 - 5), -2 * (1.5 - 5)),
        (APO(beta=0.1, kind="zero"), -0.1 * sigmoid(0.1) * sigmoid(-0.1), 0.1 * sigmoid(-0.05) * sigmoid(0.05)),
    ],
)
def test_slopes_of_pairs(algorithm: Any, chosen: float, rejected: float) -> None:
    """Each token of a response has the same slope, so its sum is that times the length."""
    _, slope_R = of_pairs(algorithm, [ranked((0, 1), PAIR[2])], *PAIR[:2])
    assert slope_R.tolist() == pytest.approx([10 * chosen, 12 * rejected], rel=1e-4)


def test_cdpo_stops() -> None:
    """At beta h = log((1 - e) / e) its slope is zero; DPO's is not."""
    h = math.log(0.9 / 0.1) / 0.1
    for smoothing, still in ((0.1, True), (0.0, False)):
        _, slope_R = of_pairs(DPO(beta=0.1, label_smoothing=smoothing), [ranked((0, 1), (3, 2))], (-10.0, -12.0 - h), (-10.0, -12.0))
        assert (abs(float(slope_R[0])) < 1e-6) == still


def test_robust_dpo_is_unbiased() -> None:
    """Its mean over the flips of a label, one in five of them, is the loss of the true label."""
    right, _ = of_pairs(RobustDPO(0.3, 0.2), [ranked((0, 1), (3, 2))], PAIR[0], PAIR[1])
    wrong, _ = of_pairs(RobustDPO(0.3, 0.2), [ranked((1, 0), (3, 2))], PAIR[0], PAIR[1])
    true, _ = of_pairs(DPO(0.3), [ranked((0, 1), (3, 2))], PAIR[0], PAIR[1])
    assert float((0.8 * right.value + 0.2 * wrong.value).detach()) == pytest.approx(float(true.value.detach()), rel=1e-5)


def test_metrics_weights_and_rankings() -> None:
    """A ranking of three with a tie (two pairs) and a pair of weight 3: the mean is over the three pairs, weights weigh the loss alone."""
    groups = [ranked((1, 0, 1), (2, 3, 1)), ranked((0, 1), (4, 2), weight=3.0)]
    logps, refs = (-2.0, -5.0, -1.0, -6.0, -3.0), (-3.0, -4.5, -1.0, -7.5, -2.0)
    ahead = [1.0, -0.5, 0.0, 1.5, -1.0]
    loss, _ = of_pairs(DPO(beta=0.2), groups, logps, refs)
    margins = [ahead[1] - ahead[0], ahead[1] - ahead[2], ahead[3] - ahead[4]]
    losses = [math.log1p(math.exp(-0.2 * h)) * weight for h, weight in zip(margins, (1, 1, 3), strict=True)]
    assert float(loss.value.detach()) == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert {name: float(x) for name, x in loss.metrics.items()} == pytest.approx(
        {
            "rewards/chosen": 0.2 * (-0.5 - 0.5 + 1.5) / 3,
            "rewards/rejected": 0.2 * (1.0 + 0.0 - 1.0) / 3,
            "rewards/margins": 0.2 * sum(margins) / 3,
            "rewards/accuracies": 1 / 3,
            "logps/chosen": (-5 - 5 - 6) / 3,
            "logps/rejected": (-2 - 1 - 3) / 3,
        },
        rel=1e-5,
    )  # fmt: skip


def test_no_pair_nothing_to_learn() -> None:
    groups = [ranked((0, 1), (1, 1)), ranked((0, 0), (1, 1)), ranked(None, (1, 1)), ranked((0,), (1,))]
    for algorithm in (DPO(), RobustDPO(), IPO(), Hinge(), APO(), SimPO(), ORPO(), BradleyTerry(), PlackettLuce()):
        assert [algorithm.keep(group) for group in groups] == [True, False, False, False]
    assert [BradleyTerry(ties="half").keep(group) for group in groups] == [True, True, False, False]


@pytest.mark.parametrize("flip_rate", [0.5, -0.1])
def test_flip_rates(flip_rate: float) -> None:
    with pytest.raises(ValueError, match=r"allowed: 0 to below 0\.5"):
        RobustDPO(flip_rate=flip_rate)


def test_other_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="tau: got 0; allowed: above 0"):
        IPO(tau=0)
    with pytest.raises(ValueError, match="target_kl=0"):
        PPO(target_kl=0)


# ------------------------------------------------------------------------------------------------------------------ single responses


def of_kto(algorithm: KTO, groups: Sequence[Group], ahead: Sequence[float], other: Sequence[float]) -> tuple[Loss, Forest]:
    lengths = [len(response.tokens) for group in groups for response in group.responses]
    zeros = [0.0] * len(lengths)
    streams = {"ref_logp_M": zeros, "other_logp_M": other, "other_ref_logp_M": zeros}
    forest = plant(groups).with_streams({name: torch.tensor(spread(sums, lengths)) for name, sums in streams.items()})
    forest = forest.with_streams(algorithm.credit(groups, forest, {}))
    return algorithm.loss(said(spread(ahead, lengths)), forest), forest


def labelled(labels: Sequence[float | None], lengths: Sequence[int], **more: Any) -> Group:
    group = ranked(None, lengths, **more)
    return replace(group, responses=tuple(replace(r, label=label) for r, label in zip(group.responses, labels, strict=True)))


def test_kto() -> None:
    """beta 0.1, z 0.5: a desirable response ahead by 1 costs 0.487503, an undesirable one ahead by -0.5 costs 0.475021."""
    groups = [labelled([1.0], [3]), labelled([0.0], [2], weight=2.0)]
    loss, forest = of_kto(KTO(beta=0.1, desirable_weight=0.7, undesirable_weight=1.5), groups, ahead=(1.0, -0.5), other=(1.4, -0.4))
    assert forest["baseline_R"].tolist() == pytest.approx([0.5, 0.5])
    assert float(loss.value.detach()) == pytest.approx((0.7 * 0.487503 + 2.0 * 1.5 * 0.475021) / 2, rel=1e-5)
    assert {name: float(x) for name, x in loss.metrics.items()} == pytest.approx(
        {"kl": 0.5, "rewards/chosen": 0.1, "rewards/rejected": -0.05, "rewards/margins": 0.15, "logps/chosen": 1.0, "logps/rejected": -0.5}
    )


def test_kto_never_falls_below_nothing() -> None:
    """A negative estimate of the KL counts as 0; and the baseline is no way to lower the loss."""
    groups = [labelled([1.0], [3]), labelled([0.0], [2])]
    _, forest = of_kto(KTO(), groups, ahead=(1.0, -0.5), other=(-1.4, 0.4))
    assert forest["baseline_R"].tolist() == [0.0, 0.0]
    assert not forest["baseline_R"].requires_grad


def test_kto_from_rankings() -> None:
    """Without labels the best tier is desirable; a label says more than a tier."""
    groups = [ranked((1, 0, 0, 2), (1, 2, 1, 1)), replace(labelled([-1.0, 1.0], [1, 1]), tiers=(0, 1))]
    _, forest = of_kto(KTO(), groups, ahead=[0.0] * 6, other=[0.0] * 6)
    assert forest["verdict_R"].tolist() == [-1, 1, 1, -1, -1, 1]
    assert forest["share_R"].tolist() == pytest.approx([6 / 3] * 6)
    assert [KTO().keep(group) for group in (*groups, labelled([1.0, None], [1, 1]), ranked(None, (1,)))] == [True, True, False, False]


# ------------------------------------------------------------------------------------------------------------------ reward models


def test_bradley_terry_is_a_mean_over_prompts() -> None:
    """Three pairs of one prompt count as much as the one pair of another, whose weight is 2 and whose margin is 0.4."""
    groups = [ranked((2, 0, 1), (1, 2, 1)), ranked((0, 1), (2, 1), weight=2.0, margin=0.4)]
    rewards = [0.5, 1.5, -0.2, 0.3, 1.0]
    loss, slope = of_rewards(BradleyTerry(), groups, rewards)
    costs = [math.log1p(math.exp(-d)) for d in (1.5 - 0.5, 1.5 + 0.2, -0.2 - 0.5)]
    assert float(loss.value.detach()) == pytest.approx((sum(costs) / 3 + 2 * math.log1p(math.exp(0.7 + 0.4))) / 2, rel=1e-5)
    pulls = [sigmoid(-1.0) / 3, sigmoid(-1.7) / 3, sigmoid(0.7) / 3, 2 * sigmoid(1.1)]
    expected = [pulls[0] + pulls[2], -pulls[0] - pulls[1], pulls[1] - pulls[2], -pulls[3], pulls[3]]
    assert slope == pytest.approx([x / 2 for x in expected], rel=1e-5)
    metrics = {name: float(x) for name, x in loss.metrics.items()}
    assert metrics == pytest.approx({"accuracy": 2 / 4, "margin": (1.0 + 1.7 - 0.7 - 0.7) / 4, "mean_reward": 3.1 / 5})


def test_centring() -> None:
    plain, _ = of_rewards(BradleyTerry(), [ranked((0, 1), (1, 1))], [1.0, 0.4])
    held, _ = of_rewards(BradleyTerry(center_coef=0.01), [ranked((0, 1), (1, 1))], [1.0, 0.4])
    assert float((held.value - plain.value).detach()) == pytest.approx(0.01 * 1.4**2, rel=1e-3)


def test_ties_at_half() -> None:
    """Tiers 0, 1, 1: two pairs and a tie, which pulls its two together; the margin is of the pairs alone."""
    group = ranked((1, 0, 1), (1, 1, 1), margin=0.2)
    loss, _ = of_rewards(BradleyTerry(ties="half"), [group], [0.5, 1.5, -0.2])
    tie = 0.5 * math.log1p(math.exp(-0.7)) + 0.5 * math.log1p(math.exp(0.7))
    expected = (math.log1p(math.exp(-0.8)) + math.log1p(math.exp(-1.5)) + tie) / 3
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-5)
    dropped, _ = of_rewards(BradleyTerry(), [group], [0.5, 1.5, -0.2])
    assert float(dropped.value.detach()) == pytest.approx((expected * 3 - tie) / 2, rel=1e-5)
    alone, slope = of_rewards(BradleyTerry(ties="half"), [ranked((0, 0), (1, 1))], [0.9, 0.2])
    assert float(alone.value.detach()) == pytest.approx(tie, rel=1e-5)
    assert slope == pytest.approx([0.5 - sigmoid(-0.7), sigmoid(-0.7) - 0.5], rel=1e-5)
    assert float(alone.metrics["accuracy"]) == 0.0


def test_a_group_of_ties_is_never_cut() -> None:
    algorithm, groups = BradleyTerry(ties="half"), [ranked((0, 0), (3, 3))]
    forest = plant(groups)
    parts = forest.with_streams(algorithm.credit(groups, forest, {})).split(4)
    assert len(parts) == 2
    with pytest.raises(ValueError, match=r"raise train\.tokens_per_microbatch"):
        algorithm.loss(Outputs(torch.empty(0), torch.empty(0), reward_R=torch.zeros(1)), parts[0])


def test_plackett_luce() -> None:
    """(0, 1, 1, 1) is best of four; a whole ranking is a chain of softmaxes; ties stand against their own tier."""
    rewards = [0.5, 1.5, -0.2, 0.9]
    raised = [math.exp(r) for r in rewards]

    def costs(tiers: tuple[int, ...], weight: float = 1.0) -> float:
        return float(of_rewards(PlackettLuce(), [ranked(tiers, (1, 2, 1, 3), weight=weight)], rewards)[0].value.detach())

    assert costs((1, 0, 1, 1)) == pytest.approx(-math.log(raised[1] / sum(raised)), rel=1e-5)
    chain = -sum(math.log(raised[i] / sum(raised[j] for j in left)) for i, left in ((2, (0, 1, 2, 3)), (0, (0, 1, 3)), (3, (1, 3))))
    assert costs((1, 3, 0, 2), weight=0.5) == pytest.approx(0.5 * chain, rel=1e-5)
    tied = -math.log(raised[0] / sum(raised)) - math.log(raised[3] / sum(raised)) - math.log(raised[1] / (raised[1] + raised[2]))
    assert costs((0, 1, 2, 0)) == pytest.approx(tied, rel=1e-5)


def test_plackett_luce_of_a_pair_is_bradley_terry() -> None:
    groups = [ranked((1, 0), (1, 2), weight=0.7), ranked((0, 1), (2, 2))]
    (one, slope), (other, other_slope) = (of_rewards(a, groups, [0.3, 0.8, -1.0, 0.1]) for a in (PlackettLuce(), BradleyTerry()))
    assert float(one.value.detach()) == pytest.approx(float(other.value.detach()), rel=1e-6)
    assert slope == pytest.approx(other_slope, rel=1e-5)
    assert one.metrics == other.metrics


# ------------------------------------------------------------------------------------------------------------------ online


def sampled(totals: Sequence[float], logps: Sequence[Sequence[float]], stops: Sequence[Stop], weight: float = 1.0) -> Group:
    responses = tuple(
        Response(tuple(range(3, 3 + len(logp))), (True,) * len(logp), "", tuple(logp), stop=stop, score=Score(total))
        for total, logp, stop in zip(totals, logps, stops, strict=True)
    )
    return Group(Prompt("p", (1, 2), "a question"), responses, weight=weight)


def test_online_dpo_ranks_by_totals() -> None:
    group = sampled([0.3, 1.0, 0.3], [[-1.0, -2.0], [-1.5], [-0.5, -1.0]], ["eos", "eos", "length"])
    assert OnlineDPO().keep(group)
    assert not OnlineDPO().keep(sampled([0.3, 0.3], [[-1.0], [-2.0]], ["eos", "eos"]))
    group, refs = replace(group, tiers=(1, 0, 1)), (-2.5, -2.0, -1.5)
    (online, slope), (offline, other) = (of_pairs(a, [group], (-3.0, -1.5, -1.5), refs) for a in (OnlineDPO(beta=0.3), DPO(beta=0.3)))
    assert float(online.value.detach()) == float(offline.value.detach())
    assert torch.equal(slope, other)
    assert online.metrics.keys() - offline.metrics.keys() == {"entropy"}
    assert float(online.metrics["entropy"]) == pytest.approx(2.0)


def test_gae() -> None:
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.6, 0.7])
    advantages = gae(rewards, values, torch.zeros(3, dtype=torch.long), 1.0, 0.95)
    assert advantages.tolist() == pytest.approx([0.46575, 0.385, 0.3])
    assert (advantages + values).tolist() == pytest.approx([0.96575, 0.985, 1.0])
    assert whiten(advantages).tolist() == pytest.approx([1.21414, 0.02093, -1.23508], abs=1e-5)


def test_gae_stays_within_a_response() -> None:
    """Two responses side by side are each as if alone; gamma and lambda are told apart."""
    rewards, values = torch.tensor([0.1, 1.0, -0.3, 0.2, 0.5]), torch.tensor([0.5, 0.4, 0.3, 0.9, 0.1])
    together = gae(rewards, values, torch.tensor([0, 0, 1, 1, 1]), 0.9, 0.5)
    one = [0.1 + 0.9 * 0.4 - 0.5 + 0.45 * (1.0 - 0.4), 1.0 - 0.4]
    last = [0.2 + 0.9 * 0.1 - 0.9 + 0.45 * 0.4, 0.5 - 0.1]
    assert together.tolist() == pytest.approx([*one, -0.3 + 0.9 * 0.9 - 0.3 + 0.45 * last[0], *last], rel=1e-5)


def test_whiten() -> None:
    """The spread is divided by n; with `shift_mean` off the mean stays; one number, or equal ones, become 0."""
    rewards = torch.arange(1.2, 2.05, 0.1)
    assert whiten(rewards, shift_mean=False)[:3].tolist() == pytest.approx([0.0508, 0.4381, 0.8254], abs=1e-4)
    assert whiten(torch.tensor([3.0])).tolist() == [0.0]
    assert whiten(torch.tensor([0.25, 0.25])).tolist() == [0.0, 0.0]
    assert whiten(torch.tensor([])).tolist() == []


def ppo_forest(algorithm: PPO, groups: Sequence[Group], refs: Sequence[float], values: Sequence[float]) -> Forest:
    forest = plant(groups, count(groups))
    streams = {"old_logp_M": forest["sampled_logp_M"], "ref_logp_M": torch.tensor(refs), "old_value_M": torch.tensor(values)}
    forest = forest.with_streams(streams)
    return credited(algorithm, groups, forest, first_state(algorithm))


WRITTEN = [sampled([0.7, 2.0], [[-1.0, -2.0], [-0.5]], ["eos", "length"], weight=2.0), sampled([-0.4], [[-1.5, -0.2]], ["stop"])]
REFS, VALUES = [-1.2, -1.7, -0.6, -1.5, -0.9], [0.2, 0.1, 0.4, -0.3, 0.5]


def test_ppo_rewards() -> None:
    """The score comes at the last token, a response that did not end scores -1, and each token pays for its distance to the reference."""
    forest = ppo_forest(PPO(kl_coef=0.5), WRITTEN, REFS, VALUES)
    penalty = [-0.1, 0.15, -0.05, 0.0, -0.35]
    assert forest["penalty_M"].tolist() == pytest.approx(penalty, abs=1e-6)
    rewards = [p + s for p, s in zip(penalty, [0, 0.7, -1.0, 0, -0.4], strict=True)]
    last = [rewards[1] - 0.1, rewards[2] - 0.4, rewards[4] - 0.5]
    advantages = [rewards[0] + 0.1 - 0.2 + 0.95 * last[0], last[0], last[1], rewards[3] + 0.5 + 0.3 + 0.95 * last[2], last[2]]
    assert forest["return_M"].tolist() == pytest.approx([a + v for a, v in zip(advantages, VALUES, strict=True)], abs=1e-6)
    mean = sum(advantages) / 5
    std = (sum((a - mean) ** 2 for a in advantages) / 5) ** 0.5
    assert forest["advantage_M"].tolist() == pytest.approx([(a - mean) / std for a in advantages], rel=1e-5)


def test_ppo_scores_as_they_are() -> None:
    as_scored = ppo_forest(PPO(kl_coef=0.0, missing_eos_score=None), WRITTEN, REFS, [0.0] * 5)
    assert as_scored["return_M"].tolist() == pytest.approx([0.95 * 0.7, 0.7, 2.0, 0.95 * -0.4, -0.4])
    white = ppo_forest(PPO(kl_coef=0.0, missing_eos_score=None, whiten_rewards=True, gae_lambda=0.0), WRITTEN, REFS, [0.0] * 5)
    rewards = torch.tensor([0.0, 0.7, 2.0, 0.0, -0.4])
    assert white["return_M"].tolist() == pytest.approx(whiten(rewards, shift_mean=False).tolist(), rel=1e-5)
    assert float(white["return_M"].mean()) == pytest.approx(float(rewards.mean()), rel=1e-5)


def test_ppo_loss() -> None:
    """Ratios on both sides of the clip, and a value that is held where it came nearer by more than 0.3."""
    algorithm = PPO(clip=0.25, clip_value=0.3, vf_coef=0.7, kl_coef=0.5)
    streams = {"advantage_M": torch.tensor([1.0, -2.0, 0.5, -1.0, 3.0]), "return_M": torch.tensor([1.0, 0.3, -0.5, 0.1, 0.6])}
    forest = ppo_forest(algorithm, WRITTEN, REFS, VALUES).with_streams(streams)
    moved = [0.4, -0.4, 0.1, 0.3, -0.3]
    logp_M = torch.tensor([old + m for old, m in zip([-1.0, -2.0, -0.5, -1.5, -0.2], moved, strict=True)], requires_grad=True)
    value_M = torch.tensor([0.9, 0.0, 0.5, -0.35, 0.55], requires_grad=True)
    loss = algorithm.loss(Outputs(logp_M, torch.full((5,), 2.0), value_M), forest)
    weights = [2, 2, 2, 1, 1]
    objective = [1.25, -2 * 0.75, 0.5 * math.exp(0.1), -math.exp(0.3), 3 * math.exp(-0.3)]
    squares = [0.5**2, 0.3**2, 1.0**2, 0.45**2, 0.05**2]  # of the first, the held value: 0.2 + 0.3, not 0.9
    policy = -sum(w * o for w, o in zip(weights, objective, strict=True)) / 5
    value = sum(w * s / 2 for w, s in zip(weights, squares, strict=True)) / 5
    assert float(loss.value.detach()) == pytest.approx(policy + 0.7 * value, rel=1e-5)
    to_logp, to_value = torch.autograd.grad(loss.value, (logp_M, value_M))
    expected = [0.0, 0.0, -0.5 * math.exp(0.1) * 2 / 5, math.exp(0.3) / 5, -3 * math.exp(-0.3) / 5]
    assert to_logp.tolist() == pytest.approx(expected, rel=1e-5)
    assert to_value.tolist() == pytest.approx([0.0, 0.7 * -0.3 * 2 / 5, 0.7 * 1.0 * 2 / 5, 0.7 * -0.45 / 5, 0.7 * -0.05 / 5], rel=1e-4)
    metrics = {name: float(x) for name, x in loss.metrics.items()}
    assert metrics["loss/policy"] == pytest.approx(policy, rel=1e-5)
    assert metrics["loss/value"] == pytest.approx(value, rel=1e-5)
    assert metrics["clip_ratio/high_mean"] == pytest.approx(1 / 5)
    assert metrics["clip_ratio/low_mean"] == pytest.approx(1 / 5)
    assert metrics["clip_ratio/region_mean"] == pytest.approx(2 / 5)
    assert metrics["clip_ratio/value"] == pytest.approx(1 / 5)
    assert metrics["ratio"] == pytest.approx(sum(math.exp(m) for m in moved) / 5, rel=1e-5)
    assert metrics["objective/kl"] == pytest.approx((0.2 - 0.3 + 0.1 + 0.0 + 0.7) / 3, rel=1e-5)
    assert metrics["objective/non_score_reward"] == pytest.approx(-0.5 * 0.7 / 3, rel=1e-5)
    assert metrics["episodes"] == 3


def test_ppo_begins_at_a_ratio_of_one() -> None:
    forest = ppo_forest(PPO(), WRITTEN, REFS, VALUES)
    out = Outputs(forest["old_logp_M"].clone().requires_grad_(), torch.ones(5), forest["old_value_M"])
    metrics = PPO().loss(out, forest).metrics
    assert float(metrics["ratio"]) == 1.0
    assert float(metrics["clip_ratio/region_mean"]) == float(metrics["clip_ratio/value"]) == 0.0


@pytest.mark.parametrize(("kl", "expected"), [(9.0, 0.151536), (5.4, 0.149232), (-40.0, 0.148464)])
def test_the_adaptive_coefficient(kl: float, expected: float) -> None:
    algorithm = PPO(kl_coef=0.15, target_kl=6.0, horizon=1e4)
    state = algorithm.advance(first_state(algorithm), {"objective/kl": kl, "episodes": 512.0})
    assert state == {"kl_coef": pytest.approx(expected, abs=1e-6)}
    assert PPO(kl_coef=0.15).advance({"kl_coef": 0.15}, {"objective/kl": kl, "episodes": 512.0}) == {"kl_coef": 0.15}


def test_the_coefficient_that_adapted_is_the_one_that_is_used() -> None:
    forest = plant(WRITTEN, count(WRITTEN))
    forest = forest.with_streams({"old_logp_M": forest["sampled_logp_M"], "ref_logp_M": torch.tensor(REFS), "old_value_M": torch.zeros(5)})
    found = [PPO(kl_coef=9.0).credit(WRITTEN, forest, {"kl_coef": coef})["penalty_M"] for coef in (0.5, 1.0)]
    assert found[0].tolist() == pytest.approx([-0.1, 0.15, -0.05, 0.0, -0.35], abs=1e-6)
    assert torch.equal(found[1], 2 * found[0])


def test_ppo_with_next_to_nothing() -> None:
    """One token in all; and a group whose rewards all failed."""
    forest = ppo_forest(PPO(), [sampled([1.0], [[-1.0]], ["eos"])], [-1.0], [0.3])
    assert forest["advantage_M"].tolist() == [0.0]
    assert forest["return_M"].tolist() == pytest.approx([1.0])
    assert PPO().keep(WRITTEN[1])
    assert not PPO().keep(replace(WRITTEN[1], responses=()))


def test_preference_loss() -> None:
    assert float(preference_loss(torch.tensor(0.0))) == pytest.approx(LN2)
    assert float(preference_loss(torch.tensor(-200.0))) == pytest.approx(200.0)
    assert float(preference_loss(torch.tensor(2.0), 0.25)) == pytest.approx(math.log1p(math.exp(-2)) + 0.25 * 2)
