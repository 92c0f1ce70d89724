"""Hand-worked numbers that are not symmetric, and what happens when a loss is no number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ikusei.algos.cispo import CISPO
from ikusei.algos.gdpo import GDPO
from ikusei.algos.grpo import GRPO
from ikusei.algos.gspo import GSPO
from ikusei.algos.lm import LanguageModelling
from ikusei.algos.reinforce import Reinforce
from ikusei.algos.rloo import RLOO
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import Forest, Loss, Outputs, count, plant
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.online import Online, OnlineSettings
from ikusei.loops.precompute import Precompute
from ikusei.loops.steps import Schedule, StopRequest
from ikusei.loops.supervised import Supervised, SupervisedSettings
from ikusei.loops.update import NonFinite, blame, update
from ikusei.maths import centred, clipped_objective, group_advantages, kl_estimate, leave_one_out
from ikusei.protocols import Algorithm, credited, first_state
from ikusei.tasks.nursery import Nursery
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.types import Group, Prompt, Response, Sampling, Score, Term
from laws import worlds

RATIOS = torch.tensor([0.2, -0.2, 0.4]).exp()


def group(totals: list[float], lengths: list[int], weight: float = 1.0, name: str = "p") -> Group:
    """Responses of these lengths, all scored."""
    responses = tuple(
        Response(tuple(range(3, 3 + n)), (True,) * n, "", tuple(-1.0 - 0.1 * t for t in range(n)), score=Score(total))
        for total, n in zip(totals, lengths, strict=True)
    )
    return Group(Prompt(name, (1, 2), f"the question {name}"), responses, weight=weight)


def outputs(logp: list[float]) -> Outputs:
    return Outputs(torch.tensor(logp, requires_grad=True), torch.full((len(logp),), 2.0))


def prepared(algorithm: Algorithm, groups: list[Group], ref: list[float] | None = None) -> Forest:
    forest = plant(groups)
    streams = {"old_logp_M": forest["sampled_logp_M"]} | ({} if ref is None else {"ref_logp_M": torch.tensor(ref)})
    forest = forest.with_streams(streams)
    return credited(algorithm, groups, forest, first_state(algorithm))


@pytest.mark.parametrize(
    ("totals", "scaled", "expected"),
    [
        ([1, 0, 0, 0], True, [1.4997, -0.4999, -0.4999, -0.4999]),
        ([1, 0, 0, 0], False, [0.75, -0.25, -0.25, -0.25]),
        ([1, 1, 0, 0], True, [0.86588, 0.86588, -0.86588, -0.86588]),
        ([3, 0, 0.5], True, [1.140576, -0.725821, -0.414755]),
        ([0.3, 0.3, 0.3], True, [0, 0, 0]),
        ([0.1 + 0.2] * 3, False, [0, 0, 0]),
    ],
)
def test_centred(totals: list[float], scaled: bool, expected: list[float]) -> None:
    """The standard deviation is the sample's (divided by n - 1), plus 1e-4."""
    tolerance = 0.0 if set(expected) == {0} else 1e-4
    assert centred([float(total) for total in totals], scaled) == pytest.approx(expected, abs=tolerance)


def test_advantages() -> None:
    """Two groups, worth 1, 0, 0 and 0.2, 0.6: the sample standard deviation of all five is 0.4336."""
    totals = [[1.0, 0.0, 0.0], [0.2, 0.6]]
    assert group_advantages(totals, "none") == pytest.approx([2 / 3, -1 / 3, -1 / 3, -0.2, 0.2])
    assert group_advantages(totals, "group") == pytest.approx([1.15450, -0.57725, -0.57725, -0.70686, 0.70686], abs=1e-4)
    assert group_advantages(totals, "batch") == pytest.approx([1.53719, -0.76859, -0.76859, -0.46116, 0.46116], abs=1e-4)
    assert leave_one_out([1.0, 0.0, 0.0, 0.0]) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert leave_one_out([1.0, 1.0, 0.0, 0.0]) == pytest.approx([2 / 3, 2 / 3, -2 / 3, -2 / 3])


def test_gspo_by_hand() -> None:
    """Log-ratios 0.2, -0.2, 0.4 of one response: s = 1.142631, clipped at 1.1 above."""
    algorithm = GSPO(clip_low=0.2, clip_high=0.1)
    forest = prepared(algorithm, [group([1, 0], [3, 1])])
    assert forest["advantage_R"].tolist() == pytest.approx([0.70700, -0.70700], abs=1e-4)
    loss = algorithm.loss(outputs([-0.8, -1.3, -0.8, -1.1]), forest)
    expected = -(0.70700 * 1.1 - 0.70700 * math.exp(-0.1)) / 2
    assert float(loss.value.detach()) == pytest.approx(expected, abs=1e-5)
    assert float(loss.metrics["ratio"]) == pytest.approx((3 * 1.142631 + math.exp(-0.1)) / 4, abs=1e-5)
    assert float(loss.metrics["clip_ratio/high_mean"]) == pytest.approx(3 / 4)


def test_cispo_by_hand() -> None:
    """A weight of e^0.4 is held at 1.2 and still has its gradient."""
    algorithm = CISPO(ratio_high=1.2, scale_rewards="none")
    forest = prepared(algorithm, [group([1, 0], [1, 1])])
    out = outputs([-0.6, -1.1])
    loss = algorithm.loss(out, forest)
    assert float(loss.value.detach()) == pytest.approx(-(1.2 * 0.5 * -0.6 - math.exp(-0.1) * 0.5 * -1.1) / 2, rel=1e-5)
    (slope,) = torch.autograd.grad(loss.value, out.logp_M)
    assert slope.tolist() == pytest.approx([-0.3, 0.25 * math.exp(-0.1)], rel=1e-5)


def test_rloo_by_hand() -> None:
    """Worth 1 and 0; the reference holds the first 0.3 likelier over its two tokens, the second as likely."""
    algorithm = RLOO(kl_coef=0.5, clip_low=0.3, clip_high=0.1)
    forest = prepared(algorithm, [group([1, 0], [2, 1])], ref=[-0.9, -0.9, -1.0])
    assert forest["advantage_R"].tolist() == pytest.approx([1.15, -1.15])
    loss = algorithm.loss(outputs([-0.9, -0.9, -1.2]), forest)
    assert float(loss.value.detach()) == pytest.approx(-(1.15 * 1.1 - 1.15 * math.exp(-0.2)) / 2, rel=1e-5)


def test_reinforce_by_hand() -> None:
    """r = 1 and 0, a KL of 0.1 at each token of the first: A before whitening is 0.8, 0.9, 0."""
    forest = prepared(Reinforce(kl_coef=1.0), [group([1, 0], [2, 1])], ref=[-1.1, -1.2, -1.0])
    mean, values = 1.7 / 3, [0.8, 0.9, 0.0]
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / 3)
    assert forest["advantage_M"].tolist() == pytest.approx([(v - mean) / std for v in values], abs=1e-5)


def test_gdpo_tells_rewards_apart() -> None:
    """(0, 2), (1, 1) and (2, 0) are the same to GRPO; normalised apart, a reward that varies less counts for as much."""
    terms = [(0.0, 0.1), (1.0, 0.1), (1.0, 0.0)]
    scores = [Score(a + b, terms={"a": Term(1.0, a), "b": Term(2.0, b)}) for a, b in terms]
    scored = group([0, 0, 0], [1, 1, 1])
    scored = replace(scored, responses=tuple(replace(r, score=score) for r, score in zip(scored.responses, scores, strict=True)))
    forest = prepared(GDPO(), [scored])
    a, b = centred([0.0, 1.0, 1.0], scaled=True), centred([0.1, 0.1, 0.0], scaled=True)
    assert forest["advantage_R"].tolist() == pytest.approx(centred([x + 2 * y for x, y in zip(a, b, strict=True)], scaled=True), abs=1e-5)
    assert forest["advantage_R"].tolist()[2] < forest["advantage_R"].tolist()[0] < forest["advantage_R"].tolist()[1]


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (CISPO, {"ratio_high": -5.0}), (CISPO, {"ratio_low": 6.0}), (GSPO, {"clip_low": -1.0}), (GRPO, {"target_entropy": -1.0}),
        (GRPO, {"clip_high": -0.1}), (RLOO, {"kl_coef": -0.1}), (GDPO, {"clip_low": -0.2}), (Reinforce, {"kl_coef": -1.0}),
    ],
)  # fmt: skip
def test_numbers_that_cannot_teach(kind: type, numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"got \w+\(.*; allowed: "):
        kind(**numbers)


def test_the_entropy_bonus_adapts() -> None:
    algorithm = GRPO(target_entropy=1.0, entropy_step=0.1)
    state = first_state(algorithm)
    coefs = []
    for entropy in (0.5, 0.5, 2.0, 2.0, 2.0, 0.9):
        groups = [group([1, 0], [1, 1])]
        forest = plant(groups)
        credit = algorithm.credit(groups, forest, state)
        coefs.append(float(credit["entropy_coef_R"][0]) if "entropy_coef_R" in credit else 0.0)
        state = algorithm.advance(state, {"entropy": entropy})
    assert coefs == pytest.approx([0.0, 0.1, 0.2, 0.0, 0.0, 0.0])
    assert state == {"entropy_coef": pytest.approx(0.1), "below": True}
    assert GRPO(entropy_coef=0.1).advance({}, {"entropy": 1.0}) == {}


def test_kl_estimates() -> None:
    """log pi = -1, log ref = -1.2: the signs are those for tokens that pi wrote."""
    logp, ref = torch.tensor([-1.0], requires_grad=True), torch.tensor([-1.2])
    for kind, value, slope in (("k1", 0.2, 0.2), ("k2", 0.02, 0.2), ("k3", 0.018731, 1 - math.exp(-0.2))):
        kl = kl_estimate(logp, ref, kind)  # pyright: ignore[reportArgumentType]
        assert float(kl.detach()) == pytest.approx(value, abs=1e-6)
        assert float(torch.autograd.grad(kl.sum(), logp)[0]) == pytest.approx(slope, abs=1e-6)  # of k1: k2's gradient
    assert float(kl_estimate(torch.tensor(-1.5), torch.tensor(-1.2), "k1")) == pytest.approx(-0.3)
    assert float(kl_estimate(torch.tensor(-1.5), torch.tensor(-1.2), "k3")) == pytest.approx(math.exp(0.3) - 1.3)


def test_clip() -> None:
    up, down = torch.ones(3), -torch.ones(3)
    assert clipped_objective(RATIOS, up, 0.2, 0.2).tolist() == pytest.approx([1.2, 0.81873, 1.2], abs=1e-5)
    assert clipped_objective(RATIOS, up, 0.2, 0.28).tolist() == pytest.approx([1.2214, 0.81873, 1.28], abs=1e-5)
    assert clipped_objective(RATIOS, down, 0.2, 0.28).tolist() == pytest.approx([-1.2214, -0.81873, -1.49182], abs=1e-5)
    assert clipped_objective(RATIOS, down, 0.1, 0.28).tolist() == pytest.approx([-1.2214, -0.9, -1.49182], abs=1e-5)


def test_grpo_by_hand() -> None:
    """Two answers of 2 and 1 tokens worth 1 and 0: advantages 0.5 and -0.5, ratios e^0.2, e^-0.2 and e^-0.4, weight 2, KL by k2."""
    algorithm = GRPO(clip_low=0.25, clip_high=0.1, kl_coef=0.3, kl_estimator="k2")
    forest = prepared(algorithm, [group([1, 0], [2, 1], weight=2.0)], ref=[-1.0, -1.0, -1.0])
    assert forest["advantage_R"].tolist() == [0.5, -0.5]
    out = outputs([-1.0 + 0.2, -1.1 - 0.2, -1.0 - 0.4])
    objective = [0.5 * 1.1, 0.5 * math.exp(-0.2), -0.5 * 0.75]  # the first is clipped above, the last below
    kl = [0.2**2 / 2, 0.3**2 / 2, 0.4**2 / 2]
    token = [2 * (-o + 0.3 * k) for o, k in zip(objective, kl, strict=True)]
    loss = algorithm.loss(out, forest)
    assert float(loss.value.detach()) == pytest.approx(sum(token) / 3, rel=1e-5)
    assert float(loss.metrics["kl"]) == pytest.approx(sum(kl) / 3, rel=1e-5)
    assert float(loss.metrics["clip_ratio/high_mean"]) == pytest.approx(1 / 3)
    assert float(loss.metrics["clip_ratio/low_mean"]) == pytest.approx(1 / 3)
    assert float(loss.metrics["clip_ratio/region_mean"]) == pytest.approx(2 / 3)
    sequence = replace(algorithm, aggregate="sequence").loss(out, forest)
    assert float(sequence.value.detach()) == pytest.approx(((token[0] + token[1]) / 2 + token[2]) / 2, rel=1e-5)
    (slope,) = torch.autograd.grad(loss.value, out.logp_M)
    expected = [2 * 0.3 * 0.2 / 3, 2 * (-0.5 * math.exp(-0.2) - 0.3 * 0.2 - 0.3 * 0.1) / 3, -2 * 0.3 * 0.4 / 3]
    assert slope.tolist() == pytest.approx(expected, rel=1e-5)


def test_denominators_are_those_of_the_step() -> None:
    """A group of five tokens that is skipped divides all the same."""
    algorithm, groups = GRPO(), [group([1, 0], [2, 1])]
    alone = prepared(algorithm, groups)
    beside = replace(alone, denominators=replace(count([*groups, group([0, 0], [3, 2])]), laid_tokens=3.0))
    losses = [float(algorithm.loss(outputs([-0.9, -1.0, -1.3]), forest).value.detach()) for forest in (alone, beside)]
    assert losses[1] == pytest.approx(losses[0] * 3 / 8)


def test_language_modelling_by_hand() -> None:
    forest = plant([group([0], [2], weight=0.5), group([0], [1], weight=3.0)])
    loss = LanguageModelling().loss(outputs([-1.0, -2.0, -0.25]), forest)
    assert float(loss.value.detach()) == pytest.approx((0.5 * 3.0 + 3.0 * 0.25) / 3)
    assert float(loss.metrics["entropy"]) == pytest.approx(2.0)


def test_keep() -> None:
    mixed, equal, alone = group([1, 0], [1, 1]), group([1, 1], [1, 2]), group([1], [1])
    assert [GRPO().keep(each) for each in (mixed, equal, alone)] == [True, False, False]
    assert [GRPO(kl_coef=0.1).keep(each) for each in (mixed, equal, alone)] == [True, True, False]


def test_schedule() -> None:
    schedule = Schedule(lr=0.1, warmup_steps=2, shape="cosine", min_lr=0.02)
    assert [schedule.at(step, 7) for step in range(7)] == pytest.approx([0.05, 0.1, 0.1, 0.092361, 0.072361, 0.047639, 0.027639], abs=1e-6)
    assert [Schedule(0.1, 0, "linear").at(step, 5) for step in range(5)] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])
    assert {Schedule(0.1).at(step, 5) for step in range(5)} == {0.1}


@pytest.fixture
def policy() -> LocalPolicy:
    torch.manual_seed(0)
    tokenizer = make_character_tokenizer()
    config = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=len(tokenizer), **config))
    return LocalPolicy(model, tokenizer, LocalSettings(layout="forest"))


def weights(policy: LocalPolicy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.causal.model.parameters()]


@dataclass(frozen=True)
class Broken:
    """A loss that is `value` where these tokens are laid out one after the other."""

    guilty: tuple[int, ...]
    value: float = math.nan

    needs: frozenset[str] = frozenset()

    def start(self) -> dict[str, Any]:
        return {}

    def keep(self, group: Group) -> bool:
        return True

    def credit(self, groups: Any, forest: Forest, state: Any) -> dict[str, torch.Tensor]:
        return {}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        broken = repr(self.guilty)[1:-1].rstrip(",") in repr(forest.tokens_N.tolist())
        return Loss(out.logp_M.sum() / forest.denominators.tokens * (self.value if broken else 1.0))

    def advance(self, state: Any, metrics: Any) -> Any:
        return state


def nobody_asked(policy: LocalPolicy) -> Precompute:
    return Precompute(frozenset(), policy, None, 1 << 20)


def three_groups() -> list[Group]:
    """Only the second has the token 60."""
    groups = [group([1, 0], [2, 1], name=name) for name in ("first", "second", "third")]
    second = replace(groups[1], prompt=replace(groups[1].prompt, tokens=(1, 60)))
    return [groups[0], second, groups[2]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number(policy: LocalPolicy, value: float) -> None:
    """The weights, the optimiser and the version are as they were; the gradients that had been added are gone."""
    forest, before = plant(three_groups()), weights(policy)
    with pytest.raises(NonFinite, match="the loss is"):
        update(policy, [(forest, Broken((60,), value).loss)], 6, lr=0.1)
    assert policy.version == 0
    assert not policy.optimizer.state
    assert all(p.grad is None or not p.grad.any() for p in policy.causal.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))
    update(policy, [(forest, LanguageModelling().loss)], 6, lr=0.1)
    assert policy.version == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))


def test_a_gradient_that_is_no_number(policy: LocalPolicy) -> None:
    """The loss is 0 and its slope is infinite."""
    forest, before = plant(three_groups()), weights(policy)
    with pytest.raises(FloatingPointError, match="gradient norm is"):
        update(policy, [(forest, lambda out, forest: Loss((out.logp_M - out.logp_M.detach()).abs().sqrt().sum()))], 6, lr=0.1)
    assert policy.version == 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))


def test_a_gradient_that_overflowed(policy: LocalPolicy) -> None:
    """It is infinite and no NaN; clipping would divide by infinity and leave NaN in that weight and 0 in all others."""
    before, first = weights(policy), next(policy.causal.model.parameters())
    first.grad = torch.zeros_like(first)
    first.grad.view(-1)[3] = math.inf
    with pytest.raises(FloatingPointError, match="gradient norm is inf"):
        policy.optim_step(0.1)
    assert policy.version == 0 and not policy.optimizer.state
    assert all(p.grad is None or not p.grad.any() for p in policy.causal.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))


def test_blame(policy: LocalPolicy) -> None:
    groups = three_groups()
    said = blame(policy, plant(groups), groups, Broken((60,)).loss)
    assert said == "first in group second ('the question second')"
    assert "in no group alone" in blame(policy, plant(groups), groups, LanguageModelling().loss)


def test_the_online_loop_names_step_and_group(policy: LocalPolicy) -> None:
    """The first step goes well; the second has the group whose answers break the loss."""
    good, bad = three_groups()[:1], three_groups()
    given = worlds.Given([good, bad])
    loop = worlds.loop_of(Broken((60,), needs=frozenset({"old"})), worlds.Watched(policy, given, learns=True), given)
    steps = loop.steps(0, {}, StopRequest())
    assert next(steps).number == 1
    before = weights(policy)
    with pytest.raises(NonFinite, match=r"^step 2: the loss is nan, first in group second \('the question second'\)$"):
        next(steps)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))
    assert policy.version == 1


def test_stale_samples_weigh_what_the_policy_holds_them_likely(policy: LocalPolicy) -> None:
    """Each token's loss times pi_old / pi_sampled, at most the cap; an algorithm with one ratio a response takes the mean of its tokens."""
    groups = [group([1.0, 0.0], [2, 3])]
    sampled = ((-7.5, -4.0), (-6.0, -5.2, -8.0))  # about as likely as a word is to a model that knows nothing: some more, some less
    groups = [replace(groups[0], responses=tuple(replace(r, logprobs=l) for r, l in zip(groups[0].responses, sampled, strict=True)))]
    rows: Any = Rows(Nursery(num_text_rows=8), policy.tokenizer, 0)  # pyright: ignore[reportArgumentType]
    workers, settings = RewardWorkers([RewardSpec("exact", "exact")]), OnlineSettings(importance_cap=2.0)
    online = Online(policy, rows, workers, GRPO(), Sampling(), settings, 0, nobody_asked(policy))
    forest = online.forest(groups, count(groups), {})
    logp_M = policy.forward(forest).logp_M
    expected_M = (logp_M - torch.tensor([*sampled[0], *sampled[1]])).exp().clamp(max=2.0)
    assert 2.0 in expected_M.tolist() and min(expected_M.tolist()) < 1.0
    torch.testing.assert_close(forest["importance_M"], expected_M)
    torch.testing.assert_close(forest["old_logp_M"], logp_M)
    torch.testing.assert_close(forest.weight_R, torch.stack([expected_M[:2].mean(), expected_M[2:].mean()]))
    loss = GRPO().loss(policy.forward(forest), forest).value  # every ratio is 1
    assert float(loss) == pytest.approx(float(-(0.5 * expected_M[:2].sum() - 0.5 * expected_M[2:].sum()) / 5))


def test_the_supervised_loop_names_step_and_group(policy: LocalPolicy) -> None:
    """The first two steps go well; the third has the row whose answer breaks the loss."""
    task: Any = Nursery(num_text_rows=8, num_talk_rows=0)
    rows = Rows(task, policy.tokenizer, 0, in_order=True)
    settings = SupervisedSettings(steps=4, examples_per_step=2, lr=1e-3, in_order=True)
    guilty = rows.examples(2, 2)[1]
    steps = Supervised(policy, rows, Broken(guilty.responses[0].tokens), settings, nobody_asked(policy)).steps(0, {}, StopRequest())
    assert [next(steps).number, next(steps).number] == [1, 2]
    before = weights(policy)
    with pytest.raises(NonFinite, match=rf"^step 3: the loss is nan, first in group {guilty.prompt.id} "):
        next(steps)
    assert policy.version == 2
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))
