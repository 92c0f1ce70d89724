"""Law 11: tokens that are not scored get no gradient; the end token is trained; zero trained tokens is an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import worlds

from ikusei.algos.ppo import PPO
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import plant
from ikusei.loops.update import update
from ikusei.models.body import Body
from ikusei.protocols import Algorithm
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group, Prompt, Sampling

LM = worlds.ALGORITHMS["language modelling"]
FOREST = LocalSettings(layout="forest")
REFERENCE = worlds.make_policy(settings=FOREST, seed=1)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return worlds.make_groups(worlds.FOREST_SHAPES["mixed"], seed=8)


def rows_with_gradient(policy: LocalPolicy, algorithm: Algorithm, groups: Sequence[Group]) -> torch.Tensor:
    """The norm of the loss's gradient at the body's output, for each row that was laid out; the body gives all of them here, and what it
    is asked for is picked from them."""
    outputs: list[torch.Tensor] = []
    forest = worlds.step_of(algorithm, policy, worlds.rows_for(algorithm, groups), REFERENCE).forest

    def watched(run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def runs(body: Body, tokens: torch.Tensor, *given: Any) -> torch.Tensor:
            outputs.append(run(body, tokens, *given[:2]))
            return outputs[-1].index_select(1, given[2]) if given[2:] else outputs[-1]

        return runs

    with pytest.MonkeyPatch.context() as patch:
        for name in ("__call__", "plain"):
            patch.setattr(Body, name, watched(getattr(Body, name)))
        result = algorithm.loss(policy.causal.outputs(forest), forest)
    (grad,) = torch.autograd.grad(result.value, outputs[0])
    return grad.norm(dim=-1)


def laid_out(groups: Sequence[Group]) -> list[bool]:
    """Row by row of a forest: does it predict a scored token? A root's last row predicts the first token of each of its leaves."""
    rows = []
    for group in groups:
        rows += [False] * (len(group.prompt.tokens) - 1) + [any(response.mask[0] for response in group.responses)]
        for response in group.responses:
            rows += [*response.mask[1:], False]
    return rows


def computed(algorithm: Algorithm, groups: Sequence[Group]) -> list[Group]:
    return [group for group in worlds.rows_for(algorithm, groups) if algorithm.keep(group)]


@pytest.mark.parametrize("name", ["language modelling", "grpo k2 sequence", "dpo nll, length", "orpo", "kto", "online dpo", "ppo"])
@pytest.mark.parametrize("kind", ["as probed", "adapters"])
def test_only_rows_that_predict_a_scored_token_get_gradient(kind: str, name: str, groups: list[Group]) -> None:
    algorithm, settings = worlds.ALGORITHMS[name], replace(worlds.POLICIES[kind], layout="forest")
    if isinstance(algorithm, PPO):  # whose clipped tokens have no gradient either
        algorithm = replace(algorithm, clip=1e4, clip_value=1e4)
    norm_N = rows_with_gradient(worlds.make_policy(settings=settings, needs=algorithm.needs), algorithm, groups)[0]
    expected = laid_out(computed(algorithm, groups))
    assert (norm_N > 0).tolist() == expected
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("name", ["bradley terry", "plackett luce"])
def test_only_the_last_row_of_each_response_gets_gradient(name: str, groups: list[Group]) -> None:
    """Of a reward model, whatever the mask says."""
    algorithm = worlds.ALGORITHMS[name]
    norm_N = rows_with_gradient(worlds.make_policy(settings=FOREST, needs=algorithm.needs), algorithm, groups)[0]
    expected = []
    for group in computed(algorithm, groups):
        expected += [False] * len(group.prompt.tokens)
        for response in group.responses:
            expected += [False] * (len(response.tokens) - 1) + [True]
    assert (norm_N > 0).tolist() == expected


def test_padded_rows_too(groups: list[Group]) -> None:
    norm_RT = rows_with_gradient(worlds.make_policy("lfm2 convolution"), LM, groups)
    row = 0
    for group in groups:
        for response in group.responses:
            expected = [False] * (len(group.prompt.tokens) - 1) + [*response.mask, False]
            expected += [False] * (norm_RT.shape[1] - len(expected))
            assert (norm_RT[row] > 0).tolist() == expected
            row += 1
    assert row == norm_RT.shape[0]


def test_targets_are_the_scored_tokens_and_never_the_prompt(groups: list[Group]) -> None:
    forest = plant(groups)
    scored = [t for group in groups for r in group.responses for t, on in zip(r.tokens, r.mask, strict=True) if on]
    assert forest.target_M.tolist() == scored
    assert forest.denominators.tokens == len(scored)
    assert forest.tokens_N[forest.predicts_M].tolist() != scored


def test_a_token_that_nobody_scores_or_reads_changes_nothing(groups: list[Group]) -> None:
    """The last token of each answer, unscored: any other stands there as well, to the bit. Scored, it does not."""
    for on in (False, True):
        found = []
        for token in (5, 6):
            cut = [replace(r, tokens=(*r.tokens[:-1], token), mask=(*r.mask[:-1], on)) for r in groups[0].responses if len(r.tokens) > 1]
            policy = worlds.make_policy()
            metrics = policy.forward_backward(plant([replace(groups[0], responses=tuple(cut))]), LM.loss)
            found.append((metrics, worlds.gradients(policy)))
        (metrics, grads), (other, others) = found
        equal = metrics == other and all(torch.equal(grad, others[name]) for name, grad in grads.items() if "embed_tokens" not in name)
        assert equal == (not on)


def test_the_end_token_is_trained() -> None:
    """Learning from a text teaches to end it there: the end token becomes likely after it."""
    policy = worlds.make_talker()
    end = policy.tokenizer.eos_token_id
    prompt = render(policy.tokenizer, Example("2+3="))
    group = Group(prompt, (continuation(policy.tokenizer, prompt, "<think></think>5"),))
    response = group.responses[0]
    assert response.tokens[-1] == end
    assert response.tokens.count(end) == 1
    assert all(response.mask)
    forest = plant([group])
    before = float(policy.forward(forest).logp_M[-1])
    for _ in range(8):
        update(policy, [(forest, LM.loss)], 1 << 20, lr=1e-2)
    assert float(policy.forward(forest).logp_M[-1]) > max(before + 1, -1.0)


def test_an_end_token_written_by_the_policy_is_scored() -> None:
    policy = worlds.make_policy()
    (group,) = policy.snapshot().sample([Prompt("p", (7, 8, 9), "p")], 40, Sampling(max_tokens=60), seed=0)
    ended = [r for r in group.responses if r.stop == "eos"]
    assert ended
    assert all(r.tokens[-1] == worlds.IDS.eos_token_id and r.mask[-1] for r in ended)


def test_nothing_scored_is_an_error(groups: list[Group]) -> None:
    blank = [replace(g, responses=tuple(replace(r, mask=(False,) * len(r.tokens)) for r in g.responses)) for g in groups]
    with pytest.raises(ValueError, match=r"the whole step has no target token.*look at the masks"):
        plant(blank)
    with pytest.raises(ValueError, match="the whole step has no target token"):
        plant([])
    assert not any(LM.keep(group) for group in blank)


@pytest.mark.parametrize("name", worlds.ALGORITHMS)
def test_a_response_without_scored_tokens_costs_nothing(name: str, groups: list[Group]) -> None:
    """Beside scored ones it is laid out, and neither the loss nor a gradient is a NaN."""
    first, algorithm = groups[0].responses[0], worlds.ALGORITHMS[name]
    mixed = [replace(groups[0], responses=(replace(first, mask=(False,) * len(first.tokens)), *groups[0].responses[1:])), *groups[1:]]
    policy = worlds.make_policy(settings=FOREST, needs=algorithm.needs)
    seen = worlds.step_of(algorithm, policy, worlds.rows_for(algorithm, mixed), REFERENCE)
    assert all(torch.isfinite(torch.tensor(list(seen.metrics.values()))))
    assert all(torch.isfinite(grad).all() for grad in seen.gradients.values())
