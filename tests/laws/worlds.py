"""What the laws run against: the lists that a new policy, sampler, algorithm or architecture joins, and groups without any symmetry.

A symmetric world lets mistakes through, so here lengths differ, masks have holes, weights are not 1, rankings have ties, and the policy,
the one that wrote (old) and the reference are three different ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

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
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import Forest, Outputs
from ikusei.guard.outcomes import RewardSpec
from ikusei.loops.online import Online, OnlineSettings
from ikusei.loops.precompute import Precompute
from ikusei.loops.steps import Step, StopRequest
from ikusei.loops.supervised import Supervised, SupervisedSettings
from ikusei.models.adapter import Lora, adapters
from ikusei.protocols import Algorithm, ForwardPass, LossFunction, Metrics, Sampler, first_state
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.types import Group, Prompt, Response, Sampling, Score, Stop, Term

VOCABULARY = 97
CONTEXT = 96
TEMPERATURE = 0.8
WHOLE = 1 << 30  # tokens per part: everything at once

ADAPTED = LocalSettings(lora=Lora(rank=3, alpha=5))
WITH_ADAPTERS = " with adapters"

POLICIES: dict[str, LocalSettings] = {
    "as probed": LocalSettings(),
    "adapters": ADAPTED,
    "checkpointing": LocalSettings(gradient_checkpointing=True),
    "padded": LocalSettings(layout="padded"),
}

SAMPLERS: dict[str, Callable[[LocalPolicy], Sampler]] = {
    "shared": lambda policy: policy.snapshot(),
    "copy": lambda policy: policy.snapshot(copy=True),
}

ALGORITHMS: dict[str, Algorithm] = {
    "grpo": GRPO(),
    "grpo std sequence": GRPO(scale_rewards="group", aggregate="sequence"),
    "grpo batch": GRPO(scale_rewards="batch", clip_high=0.28),
    "grpo entropy": GRPO(entropy_coef=0.2, scale_rewards="group"),
    "grpo adaptive entropy": GRPO(entropy_coef=0.1, target_entropy=2.0),
    "grpo clip higher": GRPO(clip_low=0.1, clip_high=0.35),
    "grpo clip lower, sequence": GRPO(clip_low=0.3, clip_high=0.05, aggregate="sequence"),
    "grpo k1": GRPO(kl_coef=0.3, kl_estimator="k1", scale_rewards="group"),
    "grpo k2 sequence": GRPO(kl_coef=0.2, kl_estimator="k2", aggregate="sequence", clip_high=0.28),
    "grpo k3": GRPO(kl_coef=0.4, kl_estimator="k3", clip_low=0.15, clip_high=0.28),
    "gspo": GSPO(clip_low=0.05, clip_high=0.08),
    "cispo": CISPO(ratio_low=0.8, ratio_high=1.3),
    "gdpo": GDPO(clip_low=0.15, clip_high=0.28),
    "rloo": RLOO(clip_low=0.3, clip_high=0.25),
    "rloo kl": RLOO(kl_coef=0.2),
    "reinforce": Reinforce(kl_coef=0.1, clip_high=0.28),
    "reinforce baseline": Reinforce(baseline=True),
    "language modelling": LanguageModelling(),
    "dpo": DPO(beta=0.3),
    "dpo smoothed": DPO(beta=0.2, label_smoothing=0.15),
    "dpo per token": DPO(beta=4.0, per_token=True),
    "dpo nll, length": DPO(beta=0.1, nll_coef=0.7, length_coef=0.05),
    "robust dpo": RobustDPO(beta=0.2, flip_rate=0.15),
    "ipo": IPO(tau=0.2),
    "ipo per token": IPO(tau=0.6, per_token=True),
    "hinge": Hinge(beta=0.2),
    "apo zero": APO(beta=0.2),
    "apo down": APO(beta=0.15, kind="down"),
    "simpo": SimPO(beta=2.5, gamma=0.8),
    "orpo": ORPO(coef=0.4),
    "kto": KTO(beta=0.2, desirable_weight=1.3, undesirable_weight=0.6),
    "online dpo": OnlineDPO(beta=0.25),
    "bradley terry": BradleyTerry(),
    "bradley terry centred, ties": BradleyTerry(center_coef=0.05, ties="half"),
    "plackett luce": PlackettLuce(),
    "ppo": PPO(kl_coef=0.3, vf_coef=0.5),
    "ppo whitened": PPO(whiten_rewards=True, missing_eos_score=None, clip=0.1, clip_value=0.4, gamma=0.9),
    "ppo adaptive": PPO(kl_coef=0.1, target_kl=2.0, clip_value=0.05),
}

_SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": CONTEXT, "initializer_range": 0.2}
_CAPS = {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
_MIXED = ["sliding_attention", "full_attention"]
_LINEAR = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip

# name -> (the layout that the probe has to choose, transformers' model type, its configuration)
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen3": ("forest", "qwen3", _SMALL),
    "llama": ("forest", "llama", {**_SMALL, "tie_word_embeddings": True}),
    "qwen2": ("forest", "qwen2", _SMALL),
    "phi": ("forest", "phi", _SMALL),
    "phi3": ("forest", "phi3", _SMALL),
    "smollm3": ("forest", "smollm3", {**_SMALL, "no_rope_layers": [1, 0]}),
    "gemma3 window": ("forest", "gemma3_text", {**_SMALL, "sliding_window": 4, "query_pre_attn_scalar": 8, "layer_types": _MIXED}),
    "mistral window": ("forest", "mistral", {**_SMALL, "sliding_window": 4}),
    "gemma2 window caps": ("forest", "gemma2", {**_SMALL, **_CAPS, "sliding_window": 4}),
    "granite scale": ("forest", "granite", {**_SMALL, "logits_scaling": 3.0}),
    "gpt2 dropout": ("forest", "gpt2", {**_IDS, **_GPT2, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}),
    "opt dropout": ("forest", "opt", {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2, "dropout": 0.1}),
    "lfm2 convolution": ("padded", "lfm2", {**_SMALL, "layer_types": ["conv", "full_attention"]}),
    "mamba recurrent": ("padded", "mamba", {**_IDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "qwen3_next linear": ("padded", "qwen3_next", {**_SMALL, **_LINEAR, "layer_types": ["linear_attention", "full_attention"]}),
}


class Ids:
    """A tokenizer whose text is the numbers of the tokens; 2 ends a text."""

    eos_token_id = 2
    pad_token_id = 0
    chat_template = None
    all_special_tokens: tuple[str, ...] = ()
    all_special_ids: tuple[int, ...] = ()

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(f"<{token}>" for token in tokens)


IDS: Any = Ids()


def make_model(
    name: str, seed: int = 0, attention: str | None = None, reward: bool = False, more: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """Fresh weights that depend on the seed alone. Norms and biases, which begin at 1 and 0, are moved too. `more` is configuration."""
    _, kind, config = ARCHITECTURES[name]
    config = {**config, **(more or {})}
    torch.manual_seed(seed)
    chosen = {} if attention is None else {"attn_implementation": attention}
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    config = AutoConfig.for_model(kind, **config, **({"num_labels": 1, "reward_bias": 0.2} if reward else {}))
    model = loader.from_config(config, dtype=torch.float32, **chosen)
    jitter(model)
    return model


def make_policy(
    name: str = "qwen3", settings: LocalSettings | None = None, seed: int = 0, needs: frozenset[str] = frozenset()
) -> LocalPolicy:
    """With what the algorithm needs; a critic's weights, which begin at 0 or at the policy's, are moved, and so are adapters, which
    `settings` or a name such as "qwen3 with adapters" asks for."""
    settings, name = settings or (ADAPTED if name.endswith(WITH_ADAPTERS) else LocalSettings()), name.removesuffix(WITH_ADAPTERS)
    policy = LocalPolicy(make_model(name, seed, reward="reward" in needs), IDS, settings, needs)
    for offset, module in ((50, policy.critic), *((70 + n, each) for n, each in enumerate(adapters(policy.causal.model)))):
        if module is not None:
            torch.manual_seed(seed + offset)
            jitter(module)
    return policy


def jitter(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@lru_cache(maxsize=1)
def bystander() -> LocalPolicy:
    """A policy as it was before the step, whose values and mismatched log-probs are known to every test."""
    return make_policy(settings=LocalSettings(layout="forest"), seed=2, needs=frozenset({"value"}))


def make_talker(seed: int = 0, **settings: Any) -> LocalPolicy:
    """A policy over characters, with the tokenizer and chat template that come with them."""
    tokenizer: PreTrainedTokenizerBase = make_character_tokenizer()
    config = {**_SMALL, "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **config), dtype=torch.float32)
    return LocalPolicy(model, tokenizer, LocalSettings(**{"layout": "forest", **settings}))


@dataclass(frozen=True)
class Shape:
    """How many groups, and the ranges of the lengths of roots and leaves and of the number of leaves."""

    groups: int
    root: tuple[int, int]
    leaves: tuple[int, int]
    leaf: tuple[int, int]


FOREST_SHAPES = {
    "mixed": Shape(4, (1, 9), (2, 4), (1, 8)),
    "many short trees": Shape(14, (1, 5), (1, 3), (1, 6)),
    "long root": Shape(2, (38, 44), (9, 11), (1, 4)),
}


def make_groups(shape: Shape, seed: int = 0) -> list[Group]:
    """Groups with rewards and log-probs, weights between 0.5 and 2, and masks with holes; the first token of the first is scored."""
    chance = random.Random(seed)
    return [_group(chance, f"prompt {g}", shape) for g in range(shape.groups)]


def _group(chance: random.Random, name: str, shape: Shape) -> Group:
    prompt = Prompt(name, tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(*shape.root))), name)
    responses = tuple(_response(chance, chance.randint(*shape.leaf), r) for r in range(chance.randint(*shape.leaves)))
    return Group(prompt, responses, weight=chance.uniform(0.5, 2.0))


def _response(chance: random.Random, length: int, r: int) -> Response:
    tokens = tuple(chance.randrange(VOCABULARY) for _ in range(length))
    mask = tuple(t == 0 or chance.random() < 0.7 for t in range(length)) if r % 3 else (chance.random() < 0.5, *(True,) * (length - 1))
    logprobs = tuple(chance.uniform(-6.0, -1.0) for _ in range(length))
    stops: tuple[Stop, ...] = ("eos", "length", "stop")
    first, second = Term(1.0, chance.choice([0.0, 0.3, 1.0])), Term(0.5, 0.02 * r)
    score = Score(first.value + 0.5 * second.value, terms={"first": first, **({"second": second} if r != 1 else {})})
    return Response(tokens, mask, " ".join(map(str, tokens)), logprobs, stop=stops[r % 3], score=score)


def ranked(groups: Sequence[Group], seed: int = 6) -> list[Group]:
    """The groups as people judged them: most have a ranking with ties in it, some of these a margin or labels; every fourth has labels
    alone, so that it is no pair and teaches only those who learn from labels."""
    chance, judged = random.Random(seed), []
    for g, group in enumerate(groups):
        labelled = tuple(replace(response, label=chance.choice([-1.0, 0.0, 0.5, 1.0])) for response in group.responses)
        tiers = [chance.randrange(3) for _ in labelled]
        tiers[0] += len(set(tiers)) == 1  # one pair at least
        alone = g % 4 == 3
        margin = 0.3 + 0.1 * g if g % 2 == 0 else None
        judged.append(
            replace(group, tiers=None if alone else tuple(tiers), margin=margin, responses=labelled if g % 4 in (1, 3) else group.responses)
        )
    return judged


def supervised(algorithm: Algorithm) -> bool:
    """Whether it learns from rows of data: it asks for nothing that only sampling gives."""
    return not algorithm.needs & {"old", "tiers"}


def temperature_of(algorithm: Algorithm) -> float:
    """Of its loop's forests, unless a test says otherwise."""
    return 1.0 if supervised(algorithm) else TEMPERATURE


def rows_for(algorithm: Algorithm, groups: Sequence[Group]) -> list[Group]:
    """The groups as this algorithm's loop gets them: judged by people, or as they are."""
    return ranked(groups) if supervised(algorithm) and not isinstance(algorithm, LanguageModelling) else list(groups)


def with_logprobs(groups: Sequence[Group], logp_RT: Sequence[Sequence[float]], noise: float, seed: int = 5) -> list[Group]:
    """The groups as if written by a policy near the one whose log-probs these are, so that ratios lie on both sides of the clips."""
    chance, rows = random.Random(seed), iter(logp_RT)
    moved = lambda: tuple(logp + chance.gauss(0.07, noise) for logp in next(rows))  # noqa: E731
    return [replace(group, responses=tuple(replace(r, logprobs=moved()) for r in group.responses)) for group in groups]


def parameters(policy: LocalPolicy) -> dict[str, torch.nn.Parameter]:
    """Those of the model by their names, and those of its critic."""
    critic = {} if policy.critic is None else {f"critic.{name}": p for name, p in policy.critic.named_parameters()}
    return {**dict(policy.causal.model.named_parameters()), **critic}


def gradients(policy: LocalPolicy) -> dict[str, torch.Tensor]:
    """Every parameter's gradient, zeros where there is none; they are then forgotten."""
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for name, p in parameters(policy).items()}
    policy.zero_grad()
    return found


def weights(policy: LocalPolicy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in parameters(policy).items()}


# How far two computations of one number may lie apart, in units in the last place (ulp) of float32. Measured, in law 1 and against TRL: 80
# with AVX-512 or AVX2, 110 on an AMD CPU; plain transformers lies up to 60 from itself in float64. A mistake of 1e-3 is 8400.
ULP = torch.finfo(torch.float32).eps
ROUNDING = 400 * ULP


def assert_close(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], relative: float = ROUNDING) -> None:
    """Each tensor by its norm. What is zero but for rounding (a key's bias, under softmax) is held against the whole instead."""
    assert mine.keys() == theirs.keys()
    gap = {name: float((mine[name].double() - there.double()).norm()) for name, there in theirs.items()}
    norm = {name: float(there.double().norm()) for name, there in theirs.items()}
    whole = sum(each**2 for each in norm.values()) ** 0.5
    assert whole > 0, "nothing to compare: every gradient is zero"
    far = {name: f"{gap[name]:.2g} of {each:.2g}" for name, each in norm.items() if not gap[name] <= relative * max(each, 1e-2 * whole)}
    assert not far, f"differ by more than {relative:.2g}, {relative / ULP:.0f} ulp: {far}"


def assert_metrics(mine: dict[str, float], theirs: dict[str, float], relative: float = ROUNDING) -> None:
    """What is below 0.1 is a difference of larger numbers (a reward is one of log-probs), so it is held against 0.1."""
    assert mine.keys() == theirs.keys()
    far = {name: (mine[name], there) for name, there in theirs.items() if not abs(mine[name] - there) <= relative * max(abs(there), 0.1)}
    assert not far, f"differ by more than {relative:.2g}, {relative / ULP:.0f} ulp: {far}"


@dataclass(frozen=True)
class Given:
    """What each step of a loop samples or reads is given: in place of rows, sampler and reward workers. Groups end in another order than
    they are asked for."""

    steps: Sequence[Sequence[Group]]
    specs: tuple[RewardSpec, ...] = ()
    version: int = 0

    def prompts(self, step: int, count: int, round: int = 0) -> list[Prompt]:
        return [group.prompt for group in self.steps[step]]

    def examples(self, step: int, count: int) -> list[Group]:
        return list(self.steps[step])

    def sample(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> Iterator[Group]:
        asked = {id(prompt) for prompt in prompts}
        yield from (group for groups in self.steps for group in reversed(groups) if id(group.prompt) in asked)

    def submit(self, group: Group) -> Future[Group]:
        scored: Future[Group] = Future()
        scored.set_result(group)
        return scored


@dataclass(frozen=True)
class Watched:
    """A policy whose samples are given, and, unless it `learns`, whose updates are seen and not made."""

    policy: LocalPolicy
    given: Given
    learns: bool
    forests: list[Forest] = field(default_factory=list)  # those that it learned from, part by part
    updates: list[dict[str, torch.Tensor]] = field(default_factory=list)  # the gradients of each update that was not made
    told: set[str] = field(default_factory=set)  # names of the losses' metrics

    def snapshot(self, copy: bool = False) -> Given:
        return self.given

    def forward(self, forest: Forest) -> Outputs:
        return self.policy.forward(forest)

    def forward_backward(self, forest: Forest, loss: LossFunction) -> Metrics:
        self.forests.append(forest)
        metrics = self.policy.forward_backward(forest, loss)
        self.told.update(metrics)
        return metrics

    def optim_step(self, lr: float) -> Metrics:
        if self.learns:
            return self.policy.optim_step(lr)
        self.updates.append(gradients(self.policy))
        return {"learning_rate": lr}

    def zero_grad(self) -> None:
        self.policy.zero_grad()


def loop_of(
    algorithm: Algorithm,
    policy: Any,
    given: Any,
    reference: Any = None,
    before: ForwardPass | None = None,
    temperature: float = TEMPERATURE,
    **settings: Any,
) -> Online | Supervised:
    """The loop that this algorithm learns in, around groups that are given: `given.steps` says how many steps it has. `before` is asked for
    values and mismatched log-probs in place of the policy."""
    asked: Any = before or policy
    known = Precompute(algorithm.needs, asked, reference, WHOLE)
    chosen = {"steps": len(given.steps), "lr": 1e-3, "lr_shape": "constant", "tokens_per_microbatch": WHOLE, **settings}
    most = max(map(len, given.steps))
    if supervised(algorithm):
        return Supervised(policy, given, algorithm, SupervisedSettings(examples_per_step=most, **chosen), known)
    sampling = Sampling(temperature=temperature)
    return Online(policy, given, given, algorithm, sampling, OnlineSettings(prompts_per_step=most, **chosen), 0, known)


@dataclass(frozen=True)
class Seen:
    """What a loop made of a step: the record that it left, and what it did to the policy."""

    step: Step
    gradients: dict[str, torch.Tensor]
    forests: list[Forest]
    told: set[str]

    @property
    def forest(self) -> Forest:
        (whole,) = self.forests
        return whole

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the loss."""
        return {name: self.step.metrics[name] for name in self.told - {"sampling/logp_gap"}}


def step_of(algorithm: Algorithm, policy: LocalPolicy, groups: Sequence[Group], reference: Any = None, **more: Any) -> Seen:
    """The first step of a loop from these groups, but for the optimiser: the policy stays as it is. `more` is for `loop_of`; unless it
    says who `before` is, `bystander` is asked."""
    given = Given([groups])
    watched = Watched(policy, given, learns=False)
    loop = loop_of(algorithm, watched, given, reference, **{"before": bystander(), **more})
    (step,) = loop.steps(0, first_state(algorithm), StopRequest())
    return Seen(step, watched.updates[0], watched.forests, watched.told)


def learn(algorithm: Algorithm, policy: LocalPolicy, steps: Sequence[Sequence[Group]], reference: Any = None, **more: Any) -> list[Step]:
    """The policy after a loop of these steps, and what the loop left of each."""
    given = Given(steps)
    loop = loop_of(algorithm, Watched(policy, given, learns=True), given, reference, **more)
    return list(loop.steps(0, first_state(algorithm), StopRequest()))
