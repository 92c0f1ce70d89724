"""Law 10: one step raises the better of two answers; a larger KL coefficient lowers KL; gold answers pass their own grader."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import worlds
from torch import Tensor

from ikusei.algos.grpo import GRPO
from ikusei.algos.lm import LanguageModelling
from ikusei.algos.ppo import PPO
from ikusei.algos.rloo import RLOO
from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.loops.online import Online, OnlineSettings
from ikusei.loops.precompute import Precompute
from ikusei.loops.steps import StopRequest
from ikusei.maths import KL, kl_estimate
from ikusei.protocols import Algorithm, first_state
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.tasks.cat_lover import CatLover, cat_of, speak
from ikusei.tasks.gym import Gym
from ikusei.types import Example, Group, Prompt, Response, RewardResult, Sampling, Score, Term

ONLINE = {name: algorithm for name, algorithm in worlds.ALGORITHMS.items() if not worlds.supervised(algorithm)}
JUDGED = {name: a for name, a in worlds.ALGORITHMS.items() if name not in ONLINE and not isinstance(a, LanguageModelling)}


def two_answers(policy: LocalPolicy, better: int) -> Group:
    """Two answers of unlike lengths that the policy wrote, the one at `better` worth more."""
    (group,) = policy.snapshot().sample([Prompt("p", (5, 6, 7), "p")], 8, Sampling(max_tokens=9, stop_ids=tuple(range(3, 40))), seed=2)
    lengths = {len(response.tokens): response for response in group.responses}
    chosen = [lengths[min(lengths)], lengths[max(lengths)]]
    assert len(lengths) > 1
    scores = [Score(total, terms={"only": Term(1.0, total)}) for total in (0.9, 0.2)]
    responses = tuple(replace(response, score=scores[i != better]) for i, response in enumerate(chosen))
    return replace(group, responses=responses)


FOREST = {name: replace(worlds.POLICIES[name], layout="forest") for name in ("as probed", "adapters")}


def fresh(algorithm: Algorithm, kind: str = "as probed") -> LocalPolicy:
    """A policy whose critic and adapters, where it has some, are as they begin."""
    return LocalPolicy(worlds.make_model("qwen3"), worlds.IDS, FOREST[kind], algorithm.needs)


@pytest.mark.parametrize("better", [0, 1])
@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("kind", FOREST)
def test_one_step_raises_the_better_answer(kind: str, name: str, better: int) -> None:
    algorithm = ONLINE[name]
    if isinstance(algorithm, PPO):
        algorithm = replace(algorithm, missing_eos_score=None)  # the longer answer may have been cut
    policy = fresh(algorithm, kind)
    group = two_answers(policy, better)
    before = said_of(policy, [group])
    lr = 1e-4 if kind == "as probed" else 1e-3  # of adapters, few weights move
    (step,) = worlds.learn(algorithm, policy, [[group]], policy.reference(), temperature=1.0, lr=lr)
    assert step.metrics["sampling/logp_gap"] < 1e-4
    (gain,) = said_of(policy, [group]) - before
    assert gain[better] > 1e-3
    assert gain[1 - better] < -1e-3


def said_of(policy: LocalPolicy, groups: list[Group]) -> Tensor:
    """[G, 2] the log-prob of each answer, or its reward."""
    forest = plant(groups)
    out = policy.forward(forest)
    return (forest.sum_R(out.logp_M) if out.reward_R is None else out.reward_R).view(-1, 2)


@pytest.mark.parametrize("better", [0, 1])
@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize("kind", FOREST)
def test_one_step_raises_the_preferred_answer_over_the_other(kind: str, name: str, better: int) -> None:
    """By log-prob, or by reward. Two groups, so that one has another's prompt beside it."""
    algorithm, writer = JUDGED[name], worlds.make_policy(settings=FOREST[kind])
    group = replace(two_answers(writer, better), tiers=(better, 1 - better))
    groups = [group, replace(group, prompt=Prompt("other", (8, 9, 7, 4), "other"))]
    policy = worlds.make_policy(settings=FOREST[kind], needs=algorithm.needs)
    before = said_of(policy, groups)
    worlds.learn(algorithm, policy, [groups], writer, before=writer, lr=1e-4)
    gain = said_of(policy, groups) - before
    assert (gain[:, better] - gain[:, 1 - better] > 1e-3).all()


def kl_after(algorithm: Algorithm, steps: int = 12) -> float:
    """The policy's KL to where it began, in nats a token, after it learned from the same rewards.

    The estimate that is read is k3 over tokens that the policy has just written, whichever it learned with."""
    policy = fresh(algorithm)
    reference = policy.reference()
    prompts = [Prompt(f"p{i}", (4 + i, 9, 3 + 2 * i), "p") for i in range(4)]
    sampling, given = Sampling(max_tokens=6), worlds.Given([[Group(prompt, ()) for prompt in prompts]] * steps)
    settings = OnlineSettings(steps=steps, prompts_per_step=4, num_responses=8, lr=3e-3)
    known = Precompute(algorithm.needs, policy, reference, worlds.WHOLE)
    rows: Any = given
    with RewardWorkers([RewardSpec("even", "exact")], in_process={"even": evens}) as workers:
        online = Online(policy, rows, workers, algorithm, sampling, settings, 0, known)
        assert len(list(online.steps(0, first_state(algorithm), StopRequest()))) == policy.version == steps
    forest = plant(list(policy.snapshot().sample(prompts, 32, sampling, seed=99)))
    return float(kl_estimate(policy.forward(forest).logp_M, reference.forward(forest).logp_M, "k3").mean())


def evens(groups: Sequence[Group]) -> list[list[dict[str, RewardResult]]]:
    """A reward for even tokens: their share."""
    share = lambda response: sum(token % 2 == 0 for token in response.tokens) / len(response.tokens)  # noqa: E731
    return [[{"even": RewardResult(share(response), "ok")} for response in group.responses] for group in groups]


@lru_cache
def free_kl(kind: type[GRPO] | type[PPO]) -> float:
    return kl_after(GRPO() if kind is GRPO else PPO(kl_coef=0.0, missing_eos_score=None))


def assert_lowered(free: float, some: float, much: float) -> None:
    print(f"KL {free:.4f} without, {some:.4f} with some, {much:.4f} with much, nats a token")
    assert free > 0.01
    assert some < 0.8 * free
    assert much < 0.5 * some


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_larger_coefficient_lowers_kl(estimator: KL) -> None:
    some, much = (kl_after(GRPO(kl_coef=coef, kl_estimator=estimator)) for coef in (0.3, 3.0))
    assert_lowered(free_kl(GRPO), some, much)


def test_a_larger_coefficient_in_the_reward_lowers_kl_without_a_critic() -> None:
    free, some, much = (kl_after(RLOO(kl_coef=coef)) for coef in (0.0, 0.1, 1.0))
    assert_lowered(free, some, much)


def test_a_larger_coefficient_in_the_reward_lowers_kl() -> None:
    some, much = (kl_after(PPO(kl_coef=coef, missing_eos_score=None)) for coef in (0.1, 3.0))
    assert_lowered(free_kl(PPO), some, much)


def gold_answer(task: object, row: Example) -> str:
    if isinstance(task, CatLover):
        assert isinstance(row.prompt, str)
        return speak(random.Random(row.prompt), "kind", cat_of(row.prompt))
    return str(row.columns["answer"])


TASKS: dict[str, Any] = {
    "arithmetic": Arithmetic(digits=3, terms=2),
    "arithmetic, one digit": Arithmetic(digits=1, terms=3),
    "cat_lover": CatLover(),
    "gym chain_sum": Gym("chain_sum", {"max_terms": 3}),
    "gym gcd": Gym("gcd", compact=True),
    "gym spell_backward": Gym("spell_backward", compact=True),
    "gym countdown": Gym("countdown", {"min_numbers": 3, "max_numbers": 3}),
    "gym number_sorting": Gym("number_sorting"),
}


@pytest.fixture(scope="module")
def graded() -> dict[str, tuple[list[float | None], list[float | None]]]:
    """For each task, through real workers: what the gold answers earn and what those of other questions do."""
    wanted = sorted({path for task in TASKS.values() for path in task.rewards})
    found = {}
    for path in wanted:
        with RewardWorkers([RewardSpec("gold", path, timeout_s=20.0)]) as workers:
            for name, task in TASKS.items():
                if task.rewards == (path,):
                    groups = workers.score(asked(task))
                    scores = [[r.score.total if r.score else None for r in group.responses] for group in groups]
                    found[name] = ([x for right in scores for x in right[:2]], [right[2] for right in scores])
    return found


def asked(task: Any) -> list[Group]:
    """Rows of both splits, each answered by its gold, by its gold after a thought, and by a wrong answer."""
    groups = []
    for split, index in [("train", 0), ("train", 3), ("train", 17), ("test", 0), ("test", 5)]:
        row = task.row("train" if split == "train" else "test", index)
        gold = gold_answer(task, row)
        texts = (gold, f"<think>let me see</think>{gold}", "<think></think>いぬはこわい。0 12 wrong")
        responses = tuple(Response((1,), (True,), text) for text in texts)
        groups.append(Group(Prompt(f"{split}{index}", (1,), str(row.prompt), row.columns), responses))
    return groups


@pytest.mark.parametrize("name", TASKS)
def test_gold_answers_pass_their_own_grader(name: str, graded: dict[str, tuple[list[float | None], list[float | None]]]) -> None:
    right, wrong = graded[name]
    assert right == [1.0] * 10
    assert wrong == [0.0] * 5
