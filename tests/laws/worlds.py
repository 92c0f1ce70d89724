"""What the laws run against: the lists that a new policy, sampler, algorithm or architecture joins, and groups without any symmetry.

A symmetric world lets mistakes through, so here lengths differ, masks have holes, weights are not 1, and the policy, the one that wrote
(old) and the reference are three different ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ikusei.algos.grpo import GRPO
from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import Forest, Totals, count, plant
from ikusei.protocols import Algorithm, Reference, Sampler
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.types import Group, Prompt, Response, Score

VOCABULARY = 97
CONTEXT = 96
TEMPERATURE = 0.8

POLICIES: dict[str, LocalSettings] = {
    "as probed": LocalSettings(),
    "checkpointing": LocalSettings(gradient_checkpointing=True),
    "padded": LocalSettings(layout="padded"),
}

SAMPLERS: dict[str, Callable[[LocalPolicy], Sampler]] = {
    "shared": lambda policy: policy.snapshot(),
    "copy": lambda policy: policy.snapshot(copy=True),
}

ALGORITHMS: dict[str, Algorithm] = {
    "grpo": GRPO(),
    "grpo std sequence": GRPO(divide_by_std=True, aggregate="sequence"),
    "grpo clip higher": GRPO(clip_low=0.1, clip_high=0.35),
    "grpo clip lower, sequence": GRPO(clip_low=0.3, clip_high=0.05, aggregate="sequence"),
    "grpo k1": GRPO(kl_coef=0.3, kl_estimator="k1", divide_by_std=True),
    "grpo k2 sequence": GRPO(kl_coef=0.2, kl_estimator="k2", aggregate="sequence", clip_high=0.28),
    "grpo k3": GRPO(kl_coef=0.4, kl_estimator="k3", clip_low=0.15, clip_high=0.28),
    "language modelling": LanguageModelling(),
}

_SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": CONTEXT, "initializer_range": 0.2}
_CAPS = {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
_LINEAR = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip

# name -> (the layout that the probe has to choose, transformers' model type, its configuration)
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen3": ("forest", "qwen3", _SMALL),
    "llama": ("forest", "llama", {**_SMALL, "tie_word_embeddings": True}),
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


def make_model(name: str, seed: int = 0, attention: str | None = None) -> PreTrainedModel:
    """Fresh weights that depend on the seed alone. Norms and biases, which begin at 1 and 0, are moved too."""
    _, kind, config = ARCHITECTURES[name]
    torch.manual_seed(seed)
    chosen = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config), dtype=torch.float32, **chosen)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_policy(name: str = "qwen3", settings: LocalSettings | None = None, seed: int = 0) -> LocalPolicy:
    return LocalPolicy(make_model(name, seed), IDS, settings or LocalSettings())


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
    return Response(tokens, mask, " ".join(map(str, tokens)), logprobs, score=Score(chance.choice([0.0, 0.3, 1.0]) + 0.01 * r))


def with_logprobs(groups: Sequence[Group], logp_RT: Sequence[Sequence[float]], noise: float, seed: int = 5) -> list[Group]:
    """The groups as if written by a policy near the one whose log-probs these are, so that ratios lie on both sides of the clips."""
    chance, rows = random.Random(seed), iter(logp_RT)
    moved = lambda: tuple(logp + chance.gauss(0.07, noise) for logp in next(rows))  # noqa: E731
    return [replace(group, responses=tuple(replace(r, logprobs=moved()) for r in group.responses)) for group in groups]


def prepared(
    algorithm: Algorithm, groups: Sequence[Group], reference: Reference, totals: Totals | None = None, temperature: float = TEMPERATURE
) -> Forest:
    """The forest of a step with every stream that the algorithm asks for, as the online loop makes it."""
    forest = plant(groups, totals or count(groups), temperature)
    streams = {"old_logp_M": forest["sampled_logp_M"]} if "old" in algorithm.needs else {}
    if "reference" in algorithm.needs:
        streams["ref_logp_M"] = reference.forward(forest).logp_M
    forest = forest.with_streams(streams)
    return forest.with_streams(algorithm.credit(groups, forest, algorithm.start()))


def gradients(policy: LocalPolicy) -> dict[str, torch.Tensor]:
    """Every parameter's gradient, zeros where there is none; they are then forgotten."""
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for name, p in policy.causal.model.named_parameters()}
    policy.zero_grad()
    return found


def weights(policy: LocalPolicy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.causal.model.named_parameters()}


def assert_close(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], relative: float = 1e-5) -> None:
    """Each tensor by its norm. What is zero but for rounding (a key's bias, under softmax) is held against the whole instead."""
    assert mine.keys() == theirs.keys()
    whole = sum(float(t.norm()) ** 2 for t in theirs.values()) ** 0.5
    assert whole > 0, "nothing to compare: every gradient is zero"
    far = {
        name: f"{float((mine[name] - there).norm()):.2g} of {float(there.norm()):.2g}"
        for name, there in theirs.items()
        if not float((mine[name] - there).norm()) <= relative * max(float(there.norm()), 1e-2 * whole)
    }
    assert not far, f"differ by more than {relative:g}: {far}"


def assert_metrics(mine: dict[str, float], theirs: dict[str, float], relative: float = 1e-5) -> None:
    assert mine.keys() == theirs.keys()
    far = {name: (mine[name], there) for name, there in theirs.items() if not abs(mine[name] - there) <= relative * max(abs(there), 0.1)}
    assert not far, f"differ by more than {relative:g}: {far}"
