"""How the loops are wired, by hand: who is asked what and when, which rows, seeds and rates a step takes, and what it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any, ClassVar

import pytest
import torch

from ikusei.algos.dpo import DPO
from ikusei.algos.grpo import GRPO
from ikusei.algos.kto import KTO
from ikusei.algos.online_dpo import OnlineDPO
from ikusei.backends.local import LocalPolicy, LocalReference
from ikusei.forest import plant
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.metrics import describe, effective_share, gold_of
from ikusei.loops.online import Online, OnlineSettings
from ikusei.loops.precompute import Precompute
from ikusei.loops.steps import ReferenceSync, RewardsFailed, Step, StopRequest
from ikusei.loops.supervised import Supervised, SupervisedSettings
from ikusei.protocols import Algorithm, first_state
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.types import Example, Group, Prompt, Response, RewardResult, Sampling, Score, Split, Stop
from laws import worlds


@dataclass(frozen=True)
class Questions:
    """So many rows."""

    count: int
    rewards: ClassVar[tuple[str, ...]] = ()

    def num_rows(self, split: Split) -> int:
        return self.count

    def row(self, split: Split, index: int) -> Example:
        return Example(f"{index}+1=", (f" {index + 1}", "no"), tiers=(0, 1))


def group(*totals: float | None, name: str = "p", tokens: Sequence[int] = (7, 8)) -> Group:
    """Answers of unlike lengths that earned this; None: the reward failed."""
    responses = tuple(
        Response((9,) * (i + 2), (True,) * (i + 2), f"{name} {i}", tuple(-1.0 - 0.1 * t for t in range(i + 2)), "eos", score=Score(total))
        for i, total in enumerate(totals)
    )
    return Group(Prompt(name, tuple(tokens), name), responses)


def sampled(
    policy: LocalPolicy, rows: Rows, earns: Callable[[Group, int], float], algorithm: Algorithm, reference: Any = None, **settings: Any
) -> Iterator[Step]:
    """The steps of an online loop with a real sampler, whose answers earn `earns(group, place)`."""

    def judge(groups: Sequence[Group]) -> list[list[dict[str, RewardResult]]]:
        return [[{"it": RewardResult(earns(group, r), "ok")} for r in range(len(group.responses))] for group in groups]

    moving = settings.pop("moving", ReferenceSync())
    chosen = OnlineSettings(**{"prompts_per_step": 2, "num_responses": 2, "lr": 1e-3, "steps": 1, **settings}, reference=moving)
    known = Precompute(algorithm.needs, policy, reference, 1 << 20)
    with RewardWorkers([RewardSpec("it", "exact")], in_process={"it": judge}) as workers:
        loop = Online(policy, rows, workers, algorithm, Sampling(temperature=0.7, max_tokens=6), chosen, 3, known)
        yield from loop.steps(0, first_state(algorithm), StopRequest())


def place(group: Group, r: int) -> float:
    return float(r)


# ------------------------------------------------------------------------------------------------------------- what is learned from


def test_sampled_answers_are_ranked_by_what_they_earned() -> None:
    """The best is in tier 0, equals share one, and where a reward failed there is no answer to rank."""
    loop = worlds.loop_of(OnlineDPO(), None, worlds.Given([[group(1.0)]]))
    assert isinstance(loop, Online)
    assert loop.whole(group(0.2, 0.9)).tiers == (1, 0)
    whole = loop.whole(group(0.5, None, 0.9, 0.5, 0.1))
    assert (whole.tiers, [response.total for response in whole.responses]) == ((1, 0, 1, 2), [0.5, 0.9, 0.5, 0.1])
    plain = worlds.loop_of(GRPO(), None, worlds.Given([[group(1.0)]]))
    assert isinstance(plain, Online) and plain.whole(group(0.2, 0.9)).tiers is None


@pytest.mark.parametrize("updates", [1, 3])
def test_fresh_samples_are_as_likely_as_the_sampler_said(updates: int) -> None:
    """At a temperature that is not 1: the gap is that of the first update, whose ratios are 1."""
    policy = worlds.make_talker()
    rows = Rows(Arithmetic(digits=1), policy.tokenizer, 0)
    (step,) = sampled(policy, rows, place, GRPO(), updates_per_step=updates, lr=1e-2)
    assert step.metrics["sampling/logp_gap"] < 1e-4
    assert (abs(step.metrics["ratio"] - 1) < 1e-4) == (updates == 1)
    assert policy.version == updates


def test_totals_are_of_every_group_and_advantages_stand_where_their_answers_do() -> None:
    """Of three groups the first teaches nothing, and in the last a reward failed: 5 + 5 + 6 tokens are scored."""
    groups = [group(1.0, 1.0, name="a"), group(0.0, 1.0, name="b"), group(0.6, None, 0.0, name="c")]
    seen = worlds.step_of(GRPO(), worlds.make_policy(), groups)
    assert seen.step.kept == [False, True, True] and seen.step.groups == groups
    assert seen.forest.denominators.tokens == 5 + 5 + (2 + 4) and seen.forest.denominators.responses == 6
    assert seen.step.advantages == pytest.approx({(1, 0): -0.5, (1, 1): 0.5, (2, 0): 0.3, (2, 2): -0.3})
    pairs = [replace(group(0.0, 0.0, name=name), tiers=tiers) for name, tiers in (("a", (0, 0)), ("b", (0, 1)), ("c", None))]
    seen = worlds.step_of(DPO(), worlds.make_policy(), pairs, worlds.make_policy(seed=1))
    assert seen.step.kept == [False, True, False]
    assert seen.step.metrics["completions/mean_length"] == 2.5, "of every response of every row"
    assert (seen.forest.denominators.tokens, seen.forest.denominators.responses, seen.forest.denominators.groups) == (15, 6, 3)


def test_mismatched_answers_stand_after_the_prompt_before() -> None:
    """b's answers after a's prompt, c's after b's, a's after c's; the policy says one thing of them and the reference another."""
    groups = [group(1.0, name="a", tokens=(11,)), group(0.0, 1.0, name="b", tokens=(12, 13)), group(1.0, name="c", tokens=(14, 15, 16))]
    turned = [replace(each, prompt=replace(each.prompt, tokens=tokens)) for each, tokens in zip(groups, ((14, 15, 16), (11,), (12, 13)))]
    policy, reference = worlds.make_policy(), worlds.make_policy(seed=1)
    streams = Precompute(KTO().needs, policy, reference, tokens_per_microbatch=7).streams(groups, plant(groups))
    torch.testing.assert_close(streams["other_logp_M"], policy.forward(plant(turned)).logp_M, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(streams["other_ref_logp_M"], reference.forward(plant(turned)).logp_M, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(streams["ref_logp_M"], reference.forward(plant(groups)).logp_M, rtol=1e-5, atol=1e-5)
    assert (streams["other_logp_M"] - streams["other_ref_logp_M"]).abs().min() > 1e-3
    assert (streams["other_ref_logp_M"] - streams["ref_logp_M"]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="one group in the step"):
        Precompute(KTO().needs, policy, reference, 7).streams(groups[:1], plant(groups[:1]))


def test_a_run_stops_where_more_rewards_fail_than_it_allows() -> None:
    """Three of four answers of each group fail: allowed at 0.8, and not at 0.7."""
    parts = [{"it": RewardResult(1.0, "ok")}, *[{"it": RewardResult(None, "error", 0.0, "no")}] * 3]
    given = group(1.0, None, None, None)
    scores = [Score(part["it"].value, part) for part in parts]
    groups = [replace(given, responses=tuple(replace(r, score=score) for r, score in zip(given.responses, scores, strict=True)))]
    (step,) = worlds.learn(GRPO(kl_coef=0.1), worlds.make_policy(), [groups], worlds.make_policy(seed=1), max_failures=0.8)
    assert step.metrics["completions/failed"] == 0.75 and step.metrics["reward_errors/it"] == 3
    with pytest.raises(RewardsFailed, match=r"3 of 4 responses \(75%; allowed: at most 70%\)"):
        worlds.learn(GRPO(kl_coef=0.1), worlds.make_policy(), [groups], worlds.make_policy(seed=1), max_failures=0.7)


# ------------------------------------------------------------------------------------------------------------- which rows, which seeds


def test_each_round_of_each_step_has_a_seed_of_its_own() -> None:
    """Three rows, asked in every round of five steps, none of which teaches: 15 rounds, and no answer has the seed of another."""
    policy = worlds.make_talker()
    rows = Rows(Questions(3), policy.tokenizer, 0)
    steps = list(sampled(policy, rows, lambda group, r: 0.0, GRPO(), steps=5, prompts_per_step=3, refill_rounds=2))
    assert [len(step.groups) for step in steps] == [9] * 5
    seeds = [response.seed for step in steps for group in step.groups for response in group.responses]
    assert len(set(seeds)) == len(seeds) == 5 * 9 * 2


def test_refill_asks_for_what_is_missing_and_asks_others() -> None:
    """Of four questions one teaches, so three more are asked, of which two teach, so one more."""
    policy = worlds.make_talker()
    rows = Rows(Arithmetic(digits=2), policy.tokenizer, 0)
    ids = [[prompt.id for prompt in rows.prompts(0, 4, round)] for round in range(4)]
    assert len({each for row in ids for each in row}) == 16
    teaching = {ids[0][2], *ids[1][1:3]}
    earns = lambda group, r: float(r) if group.prompt.id in teaching else 0.0  # noqa: E731
    for rounds, expected in ((0, ids[0]), (1, ids[0] + ids[1][:3]), (3, ids[0] + ids[1][:3] + ids[2][:1] + ids[3][:1])):
        (step,) = sampled(policy, rows, earns, GRPO(), prompts_per_step=4, refill_rounds=rounds)
        assert [group.prompt.id for group in step.groups] == expected
        assert [each.prompt.id in teaching for each in step.groups] == step.kept
    (step,) = sampled(policy, rows, place, GRPO(), prompts_per_step=4, refill_rounds=3)
    assert [group.prompt.id for group in step.groups] == ids[0]


def test_every_epoch_has_every_row_in_an_order_of_its_own() -> None:
    """Of its round and of its seed too; a step takes the rows after those of the step before. In order, each epoch is the same."""
    tokenizer = worlds.make_talker().tokenizer
    taken = lambda rows, round=0: [prompt.text for step in range(6) for prompt in rows.prompts(step, 5, round)]  # noqa: E731
    rows = Rows(Questions(10), tokenizer, 0)
    orders = [taken(rows), taken(rows, 1), taken(Rows(Questions(10), tokenizer, 1))]
    epochs = [tuple(each[i : i + 10]) for each in orders for i in (0, 10, 20)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs) and len(set(epochs[0])) == 10
    assert len(set(epochs)) == len(epochs)
    assert [group.prompt.text for step in range(6) for group in rows.examples(step, 5)] == orders[0]
    assert taken(Rows(Questions(10), tokenizer, 0, in_order=True)) == [f"{i % 10}+1=" for i in range(30)]


# ------------------------------------------------------------------------------------------------------------- rates and references

RATES = [0.01, 0.02, 0.02, 0.02 * (1 + math.cos(math.pi / 3)) / 2, 0.02 * (1 + math.cos(2 * math.pi / 3)) / 2]  # up to 0.02, then a cosine


@pytest.mark.parametrize("algorithm", [GRPO(), DPO()], ids=["online", "supervised"])
def test_the_learning_rate_of_each_step_is_that_of_the_schedule(algorithm: Algorithm) -> None:
    pairs = [replace(group(0.0, 1.0), tiers=(1, 0))]
    settings = {"lr": 0.02, "warmup_steps": 2, "lr_shape": "cosine"}
    steps = worlds.learn(algorithm, worlds.make_policy(), [pairs] * 5, worlds.make_policy(seed=1), **settings)
    assert [step.metrics["learning_rate"] for step in steps] == pytest.approx(RATES)


@pytest.mark.parametrize("online", [True, False], ids=["online", "supervised"])
def test_a_reference_moves_after_every_second_step(online: bool) -> None:
    """After steps 2 and 4, to 0.6 of the policy as it is then and 0.4 of what it was."""
    policy, moving = worlds.make_talker(), ReferenceSync(every=2, mix=0.6)
    reference, rows = LocalReference(worlds.make_talker(seed=1).frozen_copy(), policy.causal), Rows(Questions(8), policy.tokenizer, 0)
    weights = lambda: {name: p.detach().clone() for name, p in reference.causal.model.named_parameters()}  # noqa: E731
    if online:
        steps = sampled(policy, rows, place, GRPO(kl_coef=0.1), reference, moving=moving, steps=5, lr=1e-2)
    else:
        settings = SupervisedSettings(steps=5, examples_per_step=2, lr=1e-2, reference=moving)
        steps = Supervised(policy, rows, DPO(), settings, Precompute(DPO().needs, policy, reference, 1 << 20)).steps(0, {}, StopRequest())
    was, moved = weights(), []
    for step in steps:
        now, theirs = weights(), worlds.weights(policy)
        moved += [step.number] if any(not torch.equal(now[name], was[name]) for name in now) else []
        share = 0.6 if step.number in (2, 4) else 0.0
        for name, weight in now.items():
            torch.testing.assert_close(weight, share * theirs[name] + (1 - share) * was[name])
        was = now
    assert moved == [2, 4]


# ------------------------------------------------------------------------------------------------------------- what a step is in numbers


def written(text: str, length: int, total: float | None, gold: float | None, stop: Stop = "eos", tokens: Sequence[int] = ()) -> Response:
    parts = {
        "sum": RewardResult(total, "error" if total is None else "ok"),
        "gold": RewardResult(gold, "not_applicable" if gold is None else "ok"),
    }
    ids = tuple(tokens) or tuple(range(length))
    return Response(ids, (True,) * length, text, None, stop, score=Score(total, parts))


def test_the_gold_of_an_answer_is_known_where_every_gold_reward_is() -> None:
    parts = {"a": RewardResult(1.0, "ok"), "b": RewardResult(0.5, "ok"), "c": RewardResult(None, "error")}
    answer = Response((1,), (True,), "x", score=Score(0.2, parts))
    assert gold_of(answer, ["a", "b"]) == 0.75 and gold_of(answer, ["b"]) == 0.5
    assert gold_of(answer, ["a", "c"]) is None and gold_of(answer, ["c"]) is None and gold_of(answer, []) is None
    assert gold_of(replace(answer, score=None), ["a"]) is None


def test_a_step_in_numbers() -> None:
    """Eight answers to three prompts: the second prompt's all earned 0.2, the third's nothing, and one reward failed."""
    period = (*range(8), *range(8), *range(4))  # 13 runs of eight tokens, 8 of them distinct
    answers = {
        "a": [
            written("<think></think>x", 3, 1.0, 1.0), written("same", 5, 0.0, 0.5, "length"),
            written("<think>abcd</think>y", 20, 0.5, 0.0, tokens=period),
        ],
        "b": [written("same", 2, 0.2, 0.3), written("<think></think>z", 4, 0.2, 0.1), written("w", 7, None, None, "stop")],
        "c": [written("p", 1, 0.0, 0.0), written("q", 1, 0.0, 0.4)],
    }  # fmt: skip
    groups = [Group(Prompt(name, (1,), name), tuple(each)) for name, each in answers.items()]
    totals, gold = [1.0, 0.0, 0.5, 0.2, 0.2, 0.0, 0.0], [1.0, 0.5, 0.0, 0.3, 0.1, 0.0, 0.4]
    # less its prompt's mean: totals 1/2, -1/2, 0, zeros; lengths -19/3, -13/3, 32/3, -1, 1, 0, 0; gold 1/2, 0, -1/2, .1, -.1, -.2, .2
    assert describe(groups, 1, ["gold"]) == pytest.approx({
        "completions/mean_length": 43 / 8, "completions/clipped_ratio": 1 / 8, "completions/mean_terminated_length": 38 / 7,
        "groups/kept": 1 / 3, "groups/all_zero": 1 / 3, "groups/all_full": 1 / 3, "completions/failed": 1 / 8,
        "reward": fmean(totals), "reward_std": pstdev(totals),
        "rewards/sum/mean": fmean(totals), "rewards/sum/std": pstdev(totals),
        "rewards/gold/mean": fmean(gold), "rewards/gold/std": pstdev(gold),
        "thoughts/mean_length": 4 / 8, "thoughts/empty": 2 / 8, "thoughts/none": 5 / 8,
        "completions/repetition": 5 / 13, "completions/duplicates": 2 / 8,
        "reward/length": -1 / math.sqrt(0.5 * (361 + 169 + 1024 + 18) / 9), "gold/agreement": 0.25 / math.sqrt(0.5 * 0.6), "gold/most": 1.0,
    })  # fmt: skip
    assert effective_share([3.0, -1.0, 0.0]) == {"advantage/effective": pytest.approx(16 / 10 / 2)} and effective_share([0.0]) == {}
