"""Law 10: one step raises the better of two answers; a larger KL coefficient lowers KL; gold answers pass their own grader."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import worlds

from ikusei.algos.grpo import GRPO
from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.loops.steps import update
from ikusei.maths import KL, kl_estimate
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.tasks.cat_lover import CatLover, cat_of, speak
from ikusei.tasks.gym import Gym
from ikusei.types import Example, Group, Prompt, Response, Sampling, Score

GRPOS = {name: algorithm for name, algorithm in worlds.ALGORITHMS.items() if isinstance(algorithm, GRPO)}
WHOLE = 1 << 20


def two_answers(policy: LocalPolicy, better: int) -> Group:
    """Two answers of unlike lengths that the policy wrote, the one at `better` worth more."""
    (group,) = policy.snapshot().sample([Prompt("p", (5, 6, 7), "p")], 8, Sampling(max_tokens=9, stop_ids=tuple(range(3, 40))), seed=2)
    lengths = {len(response.tokens): response for response in group.responses}
    chosen = [lengths[min(lengths)], lengths[max(lengths)]]
    assert len(lengths) > 1
    responses = tuple(replace(response, score=Score(0.9 if i == better else 0.2)) for i, response in enumerate(chosen))
    return replace(group, responses=responses)


@pytest.mark.parametrize("better", [0, 1])
@pytest.mark.parametrize("name", GRPOS)
def test_one_step_raises_the_better_answer(name: str, better: int) -> None:
    policy, algorithm = worlds.make_policy(), GRPOS[name]
    group = two_answers(policy, better)
    forest = worlds.prepared(algorithm, [group], policy.reference(), temperature=1.0)
    before = forest.sum_R(policy.forward(forest).logp_M)
    update(policy, forest, algorithm.loss, WHOLE, lr=1e-4)
    gain = forest.sum_R(policy.forward(forest).logp_M) - before
    assert gain[better] > 1e-3
    assert gain[1 - better] < -1e-3


def kl_after(kl_coef: float, estimator: KL, steps: int = 12) -> float:
    """The policy's KL to where it began, in nats a token, after it learned from the same rewards with this coefficient.

    The estimate that is read is k3 over tokens that the policy has just written, whichever it learned with."""
    policy = worlds.make_policy()
    reference = policy.reference()
    algorithm = GRPO(kl_coef=kl_coef, kl_estimator=estimator)
    prompts = [Prompt(f"p{i}", (4 + i, 9, 3 + 2 * i), "p") for i in range(4)]
    sampling = Sampling(max_tokens=6)
    for step in range(steps):
        groups = [liked(group) for group in policy.snapshot().sample(prompts, 8, sampling, seed=step)]
        update(policy, worlds.prepared(algorithm, groups, reference, temperature=1.0), algorithm.loss, WHOLE, lr=3e-3)
    forest = plant(list(policy.snapshot().sample(prompts, 32, sampling, seed=99)))
    return float(kl_estimate(policy.forward(forest).logp_M, reference.forward(forest).logp_M, "k3").mean())


def liked(group: Group) -> Group:
    """Rewards even tokens."""
    share = lambda response: sum(token % 2 == 0 for token in response.tokens) / len(response.tokens)  # noqa: E731
    return replace(group, responses=tuple(replace(response, score=Score(share(response))) for response in group.responses))


@pytest.fixture(scope="module")
def free_kl() -> float:
    return kl_after(0.0, "k3")


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_larger_coefficient_lowers_kl(estimator: KL, free_kl: float) -> None:
    some, much = kl_after(0.3, estimator), kl_after(3.0, estimator)
    print(f"{estimator}: KL {free_kl:.4f} without, {some:.4f} with 0.3, {much:.4f} with 3 nats a token")
    assert free_kl > 0.01
    assert some < 0.8 * free_kl
    assert much < 0.5 * some


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
