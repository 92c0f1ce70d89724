"""Law 13: loss and gradients are equal with skipping on and off; an algorithm with a KL term keeps every group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import worlds

from ikusei.algos.cispo import CISPO
from ikusei.algos.gdpo import GDPO
from ikusei.algos.grpo import GRPO
from ikusei.algos.gspo import GSPO
from ikusei.algos.kto import KTO
from ikusei.algos.lm import LanguageModelling
from ikusei.algos.online_dpo import OnlineDPO
from ikusei.algos.ppo import PPO
from ikusei.algos.reinforce import Reinforce
from ikusei.algos.rloo import RLOO
from ikusei.backends.local import LocalSettings
from ikusei.forest import Forest, Loss, Outputs, plant
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.online import Online, OnlineSettings
from ikusei.loops.precompute import Precompute
from ikusei.loops.steps import StopRequest
from ikusei.protocols import Algorithm, Crediting, first_state, next_state
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.types import Group, Sampling, Score

GRPOS = {name: algorithm for name, algorithm in worlds.ALGORITHMS.items() if isinstance(algorithm, (GRPO, GSPO, CISPO, RLOO))}
MORE = ("grpo k1", "grpo k2 sequence", "grpo k3", "grpo batch", "grpo entropy", "grpo adaptive entropy", "rloo kl")  # keep every group
PREFERENCES = {
    name: algorithm
    for name, algorithm in worlds.ALGORITHMS.items()
    if "old" not in algorithm.needs and not isinstance(algorithm, (LanguageModelling, KTO, OnlineDPO))
}
DECAY = LocalSettings(weight_decay=0.1)


@dataclass(frozen=True)
class Unskipped:
    """The same algorithm, but every group is computed."""

    algorithm: Algorithm

    @property
    def needs(self) -> frozenset[str]:
        return self.algorithm.needs

    def start(self) -> Mapping[str, Any]:
        return first_state(self.algorithm)

    def keep(self, group: Group) -> bool:
        return True

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return self.algorithm.credit(groups, forest, state) if isinstance(self.algorithm, Crediting) else {}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        return self.algorithm.loss(out, forest)

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return next_state(self.algorithm, state, dict(metrics))


def all_equal(group: Group, total: float) -> Group:
    return replace(group, responses=tuple(replace(response, score=Score(total)) for response in group.responses))


def some_teach_nothing(seed: int = 0) -> list[Group]:
    """Six groups: all wrong, all right, and of 0.1 + 0.2, whose mean is not exactly itself; the others differ."""
    groups = worlds.make_groups(worlds.Shape(6, (1, 9), (3, 5), (1, 8)), seed)
    return [all_equal(groups[0], 0.0), groups[1], all_equal(groups[2], 1.0), groups[3], all_equal(groups[4], 0.1 + 0.2), groups[5]]


@pytest.mark.parametrize("name", GRPOS)
@pytest.mark.parametrize("kind", ["qwen3", "qwen3 with adapters"])
def test_loss_and_gradients(kind: str, name: str) -> None:
    algorithm, groups = GRPOS[name], some_teach_nothing()
    reference = worlds.make_policy(seed=1)
    some, every = (worlds.step_of(each, worlds.make_policy(kind), groups, reference) for each in (algorithm, Unskipped(algorithm)))
    assert [sum(seen.step.kept) for seen in (some, every)] == [6 if name in MORE else 3, 6]
    assert some.metrics["loss"] == pytest.approx(every.metrics["loss"], rel=worlds.ROUNDING)
    worlds.assert_close(some.gradients, every.gradients)


def test_a_kl_term_keeps_every_group() -> None:
    for name, algorithm in GRPOS.items():
        assert [algorithm.keep(group) for group in some_teach_nothing()] == [name in MORE or i % 2 == 1 for i in range(6)]
    for algorithm in (PPO(), PPO(kl_coef=0.0), Reinforce(), GDPO()):  # a critic learns from each; and a mean over the step is of all
        assert all(algorithm.keep(group) for group in some_teach_nothing())


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("kind", ["as probed", "adapters"])
def test_groups_without_a_pair(kind: str, name: str) -> None:
    """Responses that nobody ranked, or that are all of one tier, teach nothing, and count among the responses and the groups."""
    algorithm = PREFERENCES[name]
    groups = worlds.ranked(worlds.make_groups(worlds.Shape(8, (1, 9), (2, 4), (1, 8)), seed=4))
    groups[4] = replace(groups[4], tiers=(1,) * len(groups[4].responses))
    reference, found = worlds.make_policy(seed=1), []
    for each in (algorithm, Unskipped(algorithm)):
        policy = worlds.make_policy(settings=replace(worlds.POLICIES[kind], layout="forest"), needs=algorithm.needs)
        seen = worlds.step_of(each, policy, groups, reference)
        found.append((seen, {name: value for name, value in seen.metrics.items() if name != "mean_reward"}))  # of what was computed
    (some, metrics), (every, whole_metrics) = found
    assert [sum(seen.step.kept) for seen in (some, every)] == [6 if "ties" in name else 5, 8]
    worlds.assert_metrics(metrics, whole_metrics)
    worlds.assert_close(some.gradients, every.gradients)


def test_the_denominators_matter() -> None:
    """What the law rests on: with totals of the kept groups alone, the gradient would be another."""
    algorithm, groups = GRPOS["grpo"], some_teach_nothing()
    kept = [group for group in groups if algorithm.keep(group)]
    losses = [worlds.step_of(algorithm, worlds.make_policy(), given).metrics["loss"] for given in (groups, kept)]
    assert abs(losses[0] - losses[1]) > 0.05 * abs(losses[0])


@pytest.mark.parametrize("name", ["grpo", "grpo std sequence"])
def test_the_weights_after_several_steps(name: str) -> None:
    """Through the loop and the optimiser: some steps teach in part, and one not at all."""
    ends, losses = [], []
    for algorithm in (GRPOS[name], Unskipped(GRPOS[name])):
        policy = worlds.make_policy(settings=DECAY)
        nothing = [all_equal(group, 1.0) for group in some_teach_nothing(7)]
        steps = worlds.learn(algorithm, policy, [some_teach_nothing(), nothing], lr=1e-2)
        losses.append([step.metrics.get("loss", 0.0) for step in steps])
        assert policy.version == 2
        ends.append(worlds.weights(policy))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)
    start = worlds.weights(worlds.make_policy())
    moved = [{name: end[name] - start[name] for name in start} for end in ends]
    worlds.assert_close(moved[0], moved[1], relative=1e-3)


def test_all_skipped_is_still_an_update() -> None:
    policy = worlds.make_policy()
    nothing = [all_equal(group, 0.0) for group in some_teach_nothing()]
    before = worlds.weights(policy)
    calls = []
    policy.causal.model.get_input_embeddings().register_forward_hook(lambda *seen: calls.append(seen))
    (step,) = worlds.learn(GRPOS["grpo"], policy, [nothing], updates_per_step=2)
    assert policy.version == 2
    assert step.metrics["grad_norm"] == 0
    assert not any(step.kept) and not step.advantages
    assert not calls, "nothing to learn, and yet a forward"
    assert all(torch.equal(before[name], after) for name, after in worlds.weights(policy).items())


def test_skipped_groups_are_not_computed() -> None:
    groups = some_teach_nothing()
    rows: list[int] = []
    policy = worlds.make_policy()
    embeddings = policy.causal.model.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, args, out: rows.append(args[0].numel()))
    worlds.learn(GRPOS["grpo"], policy, [groups])
    assert sum(rows) == plant([groups[i] for i in (1, 3, 5)]).tokens_N.numel()


def test_the_whole_loop(tmp_path: Path) -> None:
    """Sampled, scored by real workers, some groups skipped in each step: the same losses and weights, step by step."""
    (tmp_path / "marks.py").write_text("def early(prompt, response, **columns):\n    return float(response[:1] < 'c')\n")
    ends, losses, kept = [], [], []
    for algorithm in (GRPOS["grpo"], Unskipped(GRPOS["grpo"])):
        policy = worlds.make_talker()
        task: Any = Arithmetic(digits=1)
        settings = OnlineSettings(steps=3, prompts_per_step=6, num_responses=3, lr=1e-3)
        with RewardWorkers([RewardSpec("early", f"{tmp_path}/marks.py:early")]) as workers:
            sampling = Sampling(temperature=0.9, max_tokens=6)
            rows = Rows(task, policy.tokenizer, 0)
            known = Precompute(algorithm.needs, policy, None, worlds.WHOLE)
            online = Online(policy, rows, workers, algorithm, sampling, settings, 0, known)
            steps = list(online.steps(0, {}, StopRequest()))
        losses.append([step.metrics["loss"] for step in steps])
        kept.append([sum(step.kept) for step in steps])
        ends.append(worlds.weights(policy))
    assert all(0 < number < 6 for number in kept[0]), kept
    assert kept[1] == [6, 6, 6]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)
    worlds.assert_close(ends[0], ends[1])
