"""The implementation details of RLHF with PPO (arXiv:2403.17031 and the study of 2019's code before it), one test a detail, by its number.

Numbers 1 to 19 are those of the checklist; then come the extras of the later study, and the pitfalls that were seen in code and papers.
What does not exist here by design:

    2, extras   padding: nothing is padded, so there are no position ids to mend, no mask one longer than another, no log-probs of 1.0 to
                fill holes with, and no `generate` that position ids could be handed to: the sampler is ours
    3           sampling on past the end token, as the code of 2019 did: a response ends there, as in that of 2020
    5           seeds by process: a response's random numbers belong to (seed, prompt, sample, position), whichever process writes it
    12          cutting responses after the fact: the sampler stops at the end token, and what it wrote is what is scored
    16          whitening by minibatch: it is over the whole step, before the step is cut, so no part can be too small for it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from ikusei.algos.bradley_terry import BradleyTerry
from ikusei.algos.ppo import PPO
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import Forest, Loss, Outputs, plant
from ikusei.loops.data import Rows
from ikusei.loops.online import OnlineSettings
from ikusei.loops.reward_scale import mean_and_std
from ikusei.loops.steps import Schedule
from ikusei.loops.supervised import SupervisedSettings
from ikusei.loops.update import update
from ikusei.maths import gae, kl_estimate, whiten
from ikusei.models.heads import RewardModel, fresh_score
from ikusei.protocols import first_state
from ikusei.samplers.draw import response_seed
from ikusei.tasks.cat_lover import CatLover
from ikusei.text.conversation import end_of_text
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.types import Group, Prompt, Response, Sampling, Score, Stop

TOKENIZER = make_character_tokenizer("0123456789abcdef ")
END = end_of_text(TOKENIZER)
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
WHOLE = 1 << 20
NEEDS = PPO().needs


def config(kind: str = "qwen3", **more: Any) -> Any:
    ids = {"bos_token_id": TOKENIZER.bos_token_id, "eos_token_id": END, "pad_token_id": TOKENIZER.pad_token_id}
    return AutoConfig.for_model(kind, **{"vocab_size": len(TOKENIZER), "max_position_embeddings": 128, **ids, **SMALL, **more})


def language_model(**more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(initializer_range=0.2, **more), dtype=torch.float32)


def make_policy(needs: frozenset[str] = NEEDS, model: PreTrainedModel | None = None, **settings: Any) -> LocalPolicy:
    return LocalPolicy(model or language_model(), TOKENIZER, LocalSettings(**{"layout": "forest", "threads": 1, **settings}), needs)


def classifier() -> PreTrainedModel:
    """A reward model with a head as it begins."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config(initializer_range=0.2, num_labels=1), dtype=torch.float32)
    fresh_score(model, seed=3)
    return model


def reward_policy() -> LocalPolicy:
    return make_policy(frozenset({"reward"}), classifier())


def prompt(*tokens: int) -> Prompt:
    return Prompt(str(tokens), tokens, "a question")


def answer(*tokens: int, total: float = 0.0, stop: Stop = "eos") -> Response:
    return Response(tokens, (True,) * len(tokens), "", (-1.0,) * len(tokens), stop, score=Score(total))


def values_of(out: Outputs) -> Tensor:
    assert out.value_M is not None
    return out.value_M


def rewards_of(policy: LocalPolicy, groups: Sequence[Group]) -> Tensor:
    reward_R = policy.forward(plant(groups)).reward_R
    assert reward_R is not None
    return reward_R


def credited(algorithm: PPO, groups: Sequence[Group], ref: Sequence[float] | None = None, value: Sequence[float] | None = None) -> Forest:
    """A forest after `credit`; where nothing else is said, the reference says what the policy did and the critic 0."""
    forest = plant(groups)
    old = forest["sampled_logp_M"]
    ref_M, value_M = (old if ref is None else torch.tensor(ref)), (torch.zeros_like(old) if value is None else torch.tensor(value))
    forest = forest.with_streams({"old_logp_M": old, "ref_logp_M": ref_M, "old_value_M": value_M})
    return forest.with_streams(algorithm.credit(groups, forest, first_state(algorithm)))


def wrote(policy: LocalPolicy, count: int, sampling: Sampling, seed: int = 1) -> list[Group]:
    """What the policy answers to two prompts of unlike length, each token of an even id earning its share of 1."""
    asked = [prompt(5, 9, 11), prompt(20, 6, 7, 8, 30, 31)]
    groups = sorted(policy.snapshot().sample(asked, count, sampling, seed), key=lambda group: len(group.prompt.tokens))
    liked = lambda r: replace(r, score=Score(sum(t % 2 == 0 for t in r.tokens) / len(r.tokens)))  # noqa: E731
    return [replace(group, responses=tuple(map(liked, group.responses))) for group in groups]


def learned_from(policy: LocalPolicy, reference: Any, algorithm: PPO, groups: Sequence[Group], temperature: float = 1.0) -> Forest:
    """The groups as the loop lays them out for the update."""
    forest = plant(groups, temperature=temperature)
    streams = {"ref_logp_M": reference.forward(forest).logp_M, "old_value_M": values_of(policy.forward(forest))}
    forest = forest.with_streams({**streams, "old_logp_M": forest["sampled_logp_M"]})
    return forest.with_streams(algorithm.credit(groups, forest, first_state(algorithm)))


def test_01_reward_model_and_critic_see_question_and_answer() -> None:
    asked = [Group(prompt(*question), (answer(12, 13, END),)) for question in [(5, 9, 11), (5, 10, 11)]]
    reward_R = rewards_of(reward_policy(), asked)
    assert abs(float(reward_R[0] - reward_R[1])) > 1e-4
    policy = make_policy()
    assert policy.critic is not None
    nn.init.normal_(policy.critic.head.weight)
    value_GT = values_of(policy.forward(plant(asked))).view(2, 3)
    assert ((value_GT[0] - value_GT[1]).abs() > 1e-4).all()


def test_02_nothing_is_padded() -> None:
    groups = [Group(prompt(5, 9, 11), (answer(12), answer(13, 14, END))), Group(prompt(6, 7), (answer(20, END),))]
    forest = plant(groups)
    assert forest.tokens_N.tolist() == [5, 9, 11, 12, 13, 14, END, 6, 7, 20, END]
    assert forest.position_N.tolist() == [0, 1, 2, 3, 3, 4, 5, 0, 1, 2, 3]


def test_02_prompts_of_unlike_length_beside_each_other_change_nothing() -> None:
    policy = make_policy()
    both = wrote(policy, 3, Sampling(max_tokens=8))
    for group in both:
        (alone,) = policy.snapshot().sample([group.prompt], 3, Sampling(max_tokens=8), seed=1)
        assert [r.tokens for r in alone.responses] == [r.tokens for r in group.responses]


def test_03_a_response_ends_at_its_end_token() -> None:
    written = [response for group in wrote(make_policy(), 64, Sampling(max_tokens=48)) for response in group.responses]
    ended = [response for response in written if response.stop == "eos"]
    assert 0 < len(ended) < len(written)
    assert all(END not in response.tokens[:-1] for response in written)
    assert all((response.tokens[-1] == END) == (response.stop == "eos") for response in written)
    assert all(response.mask[-1] for response in ended), "the end token is learned"


def test_04_learning_rate_is_annealed_to_zero() -> None:
    linear = OnlineSettings(lr=3e-6, lr_shape="linear").schedule()
    assert [linear.at(step, 4) for step in range(5)] == pytest.approx([3e-6, 2.25e-6, 1.5e-6, 0.75e-6, 0.0])
    reward_model = SupervisedSettings(lr=1e-4).schedule()
    assert reward_model.at(0, 10) == 1e-4
    assert reward_model.at(10, 10) == pytest.approx(0.0, abs=1e-12)
    assert Schedule(lr=1e-3, shape="linear", warmup_steps=2).at(0, 4) == pytest.approx(5e-4)


def test_04_the_rate_that_is_given_is_the_one_that_is_used() -> None:
    policy = make_policy()
    before = [p.detach().clone() for p in policy.trained.parameters()]
    forest = plant([Group(prompt(5, 6), (answer(7, END),))])
    update(policy, [(forest, lambda out, forest: Loss(-out.logp_M.sum()))], WHOLE, lr=0.0)
    assert all(torch.equal(p, was) for p, was in zip(policy.trained.parameters(), before, strict=True))


def test_05_shuffling_and_sampling_have_seeds_of_their_own() -> None:
    orders = [[each.text for each in Rows(CatLover(), TOKENIZER, seed).prompts(0, 8)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert len({response_seed(seed, name, index) for seed in range(3) for name in ("a", "b") for index in range(3)}) == 18


def test_06_reward_model_reads_the_last_token_of_each_response() -> None:
    policy, plain, question = reward_policy(), classifier(), (5, 9, 11)
    answers = [(12, 13, END), (12, 13), (12, 13, 14, 15, END)]
    group = Group(prompt(*question), tuple(answer(*tokens) for tokens in answers))
    unread = replace(group, responses=tuple(replace(r, mask=(True,) * (len(r.tokens) - 1) + (False,)) for r in group.responses))
    with torch.no_grad():
        whole = [float(plain(input_ids=torch.tensor([[*question, *tokens]])).logits) for tokens in answers]
    assert rewards_of(policy, [group]).tolist() == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert torch.equal(rewards_of(policy, [unread]), rewards_of(policy, [group])), "what is learned does not say where it ends"
    assert abs(whole[0] - whole[1]) > 1e-4


def test_07_the_head_of_a_reward_model_begins_small() -> None:
    wide = config(hidden_size=1024, num_hidden_layers=1, vocab_size=16, num_labels=1)
    heads = []
    for seed in (0, 0, 1):
        model: Any = AutoModelForSequenceClassification.from_config(wide)
        fresh_score(model, seed)
        heads.append(model.score.weight.detach())
        assert model.score.bias is None
    assert float(heads[0].std(correction=0)) == pytest.approx(1 / math.sqrt(1025), rel=0.08)
    assert abs(float(heads[0].mean())) < 4 / 1025
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_08_rewards_are_normalised_before_and_after_training() -> None:
    policy, writer = reward_policy(), make_policy(frozenset())
    assert isinstance(policy.causal, RewardModel)
    samples = wrote(writer, 16, Sampling(max_tokens=6))
    pair = replace(samples[0], responses=samples[0].responses[:2], tiers=(1, 0))
    for _ in range(2):  # before, and after an update that moves the scale
        was = rewards_of(policy, samples)
        mean, std = mean_and_std(policy, samples, WHOLE)
        policy.causal.rescale(1 / std, -mean / std)
        now = rewards_of(policy, samples)
        assert (abs(float(was.mean())) > 1e-2) or (abs(float(was.std(correction=0)) - 1) > 1e-2)
        assert float(now.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(now.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
        assert torch.equal(now.argsort(), was.argsort())
        forest = plant([pair])
        forest = forest.with_streams(BradleyTerry().credit([pair], forest, {}))
        update(policy, [(forest, BradleyTerry().loss)], WHOLE, lr=1e-2)


@pytest.mark.parametrize("temperature", [0.7, 1.6])
def test_09_temperature_divides_policy_old_and_reference_and_not_the_values(temperature: float) -> None:
    policy, plain = make_policy(), language_model()
    assert policy.critic is not None
    nn.init.normal_(policy.critic.head.weight)
    groups = wrote(policy, 2, Sampling(temperature=temperature, max_tokens=6))
    forest = plant(groups, temperature=temperature)
    rows = [(*group.prompt.tokens, *r.tokens) for group in groups for r in group.responses]
    expected = []
    for row, length in zip(rows, forest.length_R.int().tolist(), strict=True):
        logits = plain(input_ids=torch.tensor([row])).logits[0, -length - 1 : -1]
        expected.append((logits / temperature).log_softmax(-1).gather(1, torch.tensor(row[-length:])[:, None]).squeeze(1))
    plain_M = torch.cat(expected).detach()
    for logp_M in (policy.forward(forest).logp_M, forest["sampled_logp_M"], policy.reference().forward(forest).logp_M):
        assert torch.allclose(logp_M, plain_M, atol=2e-5)
    assert not torch.allclose(policy.forward(plant(groups)).logp_M, plain_M, atol=1e-2)
    assert torch.equal(values_of(policy.forward(forest)), values_of(policy.forward(plant(groups))))


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_10_values_begin_at_zero_and_then_learn(critic: str) -> None:
    policy = make_policy(critic=critic)
    groups = wrote(policy, 4, Sampling(max_tokens=6))
    forest = learned_from(policy, policy.reference(), PPO(), groups)
    assert torch.equal(forest["old_value_M"], torch.zeros_like(forest["old_value_M"]))
    update(policy, [(forest, PPO().loss)], WHOLE, lr=1e-3)
    assert (values_of(policy.forward(forest)) != 0).all()


def test_11_dropout_is_off_although_it_is_configured() -> None:
    drops = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5, "n_embd": 32, "n_head": 4, "n_layer": 2}
    policy = make_policy(model=AutoModelForCausalLM.from_config(config("gpt2", **drops), dtype=torch.float32), critic="separate")
    forest = plant([Group(prompt(5, 6), (answer(7, 8, END),))])
    said = [policy.causal.outputs(forest) for _ in range(2)]  # with gradients, as in training
    assert said[0].logp_M.requires_grad
    assert torch.equal(said[0].logp_M, said[1].logp_M)
    update(policy, [(forest, lambda out, forest: Loss(-out.logp_M.sum()))], WHOLE, lr=1e-3)
    assert not any(module.training for module in policy.causal.model.modules())
    assert torch.equal(policy.causal.outputs(forest).logp_M, policy.forward(forest).logp_M)


@pytest.mark.parametrize(("stop", "score"), [("eos", 0.7), ("stop", 0.7), ("length", -1.0), ("aborted", -1.0)])
def test_12_what_does_not_end_scores_minus_one(stop: Stop, score: float) -> None:
    groups = [Group(prompt(5, 6), (answer(7, 8, total=0.7, stop=stop),))]
    assert credited(PPO(gae_lambda=1.0), groups)["return_M"].tolist() == pytest.approx([score, score])
    assert credited(PPO(gae_lambda=1.0, missing_eos_score=None), groups)["return_M"].tolist() == pytest.approx([0.7, 0.7])


def test_13_nothing_is_discounted() -> None:
    assert (PPO().gamma, PPO().gae_lambda) == (1.0, 0.95)
    groups = [Group(prompt(5, 6), (answer(7, 8, 9, END, total=0.6),))]
    assert credited(PPO(gae_lambda=1.0), groups)["return_M"].tolist() == pytest.approx([0.6] * 4)
    assert credited(PPO(), groups)["return_M"].tolist() == pytest.approx([0.6 * 0.95**t for t in (3, 2, 1, 0)])


def test_14_a_batch_in_parts_is_one_update() -> None:
    """The gradient of the whole batch, however many parts it went through the model in."""
    norms = []
    for tokens_per_microbatch in (WHOLE, 12):
        policy = make_policy()
        forest = learned_from(policy, policy.reference(), PPO(), wrote(policy, 6, Sampling(max_tokens=6)))
        metrics = update(policy, [(forest, PPO().loss)], tokens_per_microbatch, lr=1e-3)
        norms.append((policy.version, metrics["grad_norm"], metrics["loss"]))
    assert len(forest.split(12)) > 4
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_15_kl_is_paid_token_by_token_in_the_reward_and_not_differentiated() -> None:
    groups = [Group(prompt(5, 6), (answer(7, 8, END, total=0.5),))]
    forest = credited(PPO(kl_coef=0.2, gae_lambda=0.0), groups, ref=[-1.5, -0.7, -1.0])
    assert forest["penalty_M"].tolist() == pytest.approx([-0.1, 0.06, 0.0])
    assert forest["return_M"].tolist() == pytest.approx([-0.1, 0.06, 0.5])
    logp_M = forest["old_logp_M"].clone().requires_grad_()
    loss = PPO(kl_coef=0.2).loss(Outputs(logp_M, torch.ones(3), torch.zeros(3)), forest)
    (slope_M,) = torch.autograd.grad(loss.value, logp_M)
    assert slope_M.tolist() == pytest.approx((-forest["advantage_M"] / 3).tolist(), rel=1e-5), "the advantage alone moves the policy"


def test_16_whitening_is_over_the_step_by_the_biased_variance() -> None:
    groups = [Group(prompt(5, n), (answer(*range(7, 8 + n), total=0.3 * n),)) for n in (1, 2, 4)]
    advantage_M = credited(PPO(), groups)["advantage_M"]
    assert float(advantage_M.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(advantage_M.square().mean()) == pytest.approx(1.0, rel=1e-5)
    assert whiten(torch.tensor([0.46575, 0.385, 0.3])).tolist() == pytest.approx([1.21414, 0.02093, -1.23508], abs=1e-4)
    assert float(whiten(torch.tensor([1.0, 2.0, 4.0]), shift_mean=False).mean()) == pytest.approx(7 / 3)


@pytest.mark.parametrize(("value", "loss"), [(0.25, 0.75**2 / 2), (0.6, 0.8**2 / 2), (-0.3, 1.3**2 / 2)])
def test_17_a_value_gains_nothing_by_moving_further_than_the_clip(value: float, loss: float) -> None:
    """The return is 1, the value was 0 and may move by 0.2: further towards the return gains nothing, away from it costs."""
    forest = credited(PPO(), [Group(prompt(5, 6), (answer(END, total=1.0),))])
    value_M = torch.tensor([value], requires_grad=True)
    found = PPO(clip_value=0.3 if value == 0.25 else 0.2, vf_coef=1.0).loss(Outputs(forest["old_logp_M"], torch.ones(1), value_M), forest)
    assert float(found.metrics["loss/value"]) == pytest.approx(loss)
    (slope_M,) = torch.autograd.grad(found.value, value_M)
    assert float(slope_M) == pytest.approx(0.0 if value == 0.6 else value - 1.0)


@pytest.mark.parametrize(("kl", "after"), [(9.0, 0.151536), (5.4, 0.149232), (6.0, 0.15), (600.0, 0.151536), (-1.0, 0.148464)])
def test_18_the_coefficient_follows_the_kl(kl: float, after: float) -> None:
    algorithm = PPO(kl_coef=0.15, target_kl=6.0, horizon=10_000)
    assert algorithm.advance({"kl_coef": 0.15}, {"objective/kl": kl, "episodes": 512.0})["kl_coef"] == pytest.approx(after, abs=1e-7)


def test_18_a_coefficient_of_zero_could_not_follow_anything() -> None:
    with pytest.raises(ValueError, match="kl_coef=0"):
        PPO(kl_coef=0.0, target_kl=6.0)


def test_19_eps_stands_outside_the_bias_correction() -> None:
    """Torch's first step is lr g / (|g| + eps); in the code of 2019 eps counted sqrt(1 / (1 - beta2)) times as much."""
    lr, eps = 1e-3, 1e-5
    policy = make_policy(frozenset(), eps=eps, clip_norm=math.inf)
    forest = plant([Group(prompt(5, 6), (answer(7, 8, END),))])
    policy.forward_backward(forest, lambda out, forest: Loss(-3e-5 * out.logp_M.sum()))
    before = [(p.detach().clone(), p.grad.clone()) for p in policy.trained.parameters() if p.grad is not None]
    policy.optim_step(lr)
    parameters = [p for p in policy.trained.parameters()]
    torch_like = torch.cat([(lr * g / (g.abs() + eps)).flatten() for _, g in before])
    moved = torch.cat([(was - p.detach()).flatten() for p, (was, _) in zip(parameters, before, strict=True)])
    assert torch.allclose(moved, torch_like, atol=3e-7)
    assert bool(((torch_like.abs() > 0.1 * lr) & (torch_like.abs() < 0.9 * lr)).any()), "gradients of the size of eps"


def test_extra_the_score_comes_at_the_last_scored_token() -> None:
    last_forced = replace(answer(7, 8, 9, total=0.8), mask=(True, True, False))
    groups = [Group(prompt(5, 6), (answer(7, total=0.4), last_forced))]
    assert credited(PPO(gae_lambda=0.0), groups)["return_M"].tolist() == pytest.approx([0.4, 0.0, 0.8])


def test_extra_the_first_update_begins_at_a_ratio_of_one() -> None:
    policy = make_policy()
    forest = learned_from(policy, policy.reference(), PPO(), wrote(policy, 8, Sampling(temperature=0.7, max_tokens=8)), temperature=0.7)
    ratio_M = (policy.forward(forest).logp_M - forest["old_logp_M"]).exp()
    assert float((ratio_M - 1).abs().max()) <= 1e-5
    metrics = update(policy, [(forest, PPO().loss)], WHOLE, lr=1e-4)
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_ratio/region_mean"] == metrics["clip_ratio/value"] == 0.0


ARMS = (7, 8)


@pytest.mark.parametrize("better", [0, 1])
def test_pitfall_sign_of_the_reward(better: int) -> None:
    """A bandit of two arms: a step raises the better one, and with the reward turned round it sinks."""
    for sign in (1.0, -1.0):
        policy = make_policy()
        group = Group(prompt(5, 6), tuple(answer(arm, total=sign * (i == better)) for i, arm in enumerate(ARMS)))
        before = policy.forward(plant([group])).logp_M
        group = replace(group, responses=tuple(replace(r, logprobs=(float(p),)) for r, p in zip(group.responses, before, strict=True)))
        update(policy, [(learned_from(policy, policy.reference(), PPO(), [group]), PPO().loss)], WHOLE, lr=1e-3)
        gained = policy.forward(plant([group])).logp_M - before
        assert sign * float(gained[better]) > 1e-3
        assert sign * float(gained[1 - better]) < -1e-3


def kl_reached(kl_coef: float) -> float:
    """KL(pi || ref) over the first token of an answer, exact, after some updates for even tokens."""
    policy, algorithm = make_policy(), PPO(kl_coef=kl_coef, missing_eos_score=None)
    reference, every = policy.reference(), plant([Group(prompt(5, 9, 11), tuple(answer(token) for token in range(len(TOKENIZER))))])
    for step in range(8):
        groups = wrote(policy, 32, Sampling(max_tokens=1), seed=step)
        update(policy, [(learned_from(policy, reference, algorithm, groups), algorithm.loss)], WHOLE, lr=3e-3)
    logp, begun = policy.forward(every).logp_M, reference.forward(every).logp_M
    return float((logp.exp() * (logp - begun)).sum())


def test_pitfall_sign_of_the_kl() -> None:
    free, some, much = (kl_reached(coef) for coef in (0.0, 0.5, 5.0))
    print(f"KL {free:.4f} without, {some:.4f} with some, {much:.4f} with much")
    assert free > 0.01
    assert free > 1.2 * some > 1.2 * 1.2 * much


def test_pitfall_sign_of_the_kl_estimates() -> None:
    logp, ref = torch.tensor(-1.0), torch.tensor(-1.2)
    assert [float(kl_estimate(logp, ref, kind)) for kind in ("k1", "k2", "k3")] == pytest.approx([0.2, 0.02, 0.018731], abs=1e-6)


def test_pitfall_nothing_to_whiten() -> None:
    """One token in the whole step, or none that differs: an advantage of 0, and not a division by it."""
    assert credited(PPO(), [Group(prompt(5, 6), (answer(END, total=0.3),))])["advantage_M"].tolist() == [0.0]
    assert whiten(torch.tensor([0.25] * 4)).tolist() == [0.0] * 4
    assert gae(torch.tensor([0.5]), torch.tensor([0.2]), torch.tensor([0]), 1.0, 0.95).tolist() == pytest.approx([0.3])
