"""One process, one device: a CPU or a GPU. The plain policy.

Weights, gradients and AdamW's moments are in fp32; with precision bf16 the products are computed in bf16 (autocast), so that a step of 1e-6
still arrives in the weights. Weight decay is on matrices only. A critic is part of the policy: one optimiser, one clipped gradient norm.
Left out: sharding (a back end of its own).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ikusei.backends.optimizer import Kind, make_optimizer
from ikusei.forest import Forest, Outputs
from ikusei.models.adapter import Lora, adapt, adapter_weights, adapters, lighten, merged, switched_off, take_weights, trained_weights
from ikusei.models.causal import CausalModel
from ikusei.models.critic import make_critic
from ikusei.models.heads import RewardModel
from ikusei.models.probe import probe
from ikusei.protocols import LossFunction, Metrics, Policy
from ikusei.samplers.local import LocalSampler, end_tokens

ALL_THREADS = torch.get_num_threads()
ONE_THREAD = 5e8  # parameters times tokens: below, one thread computes as fast as two
ONE_WRITES = 2_000_000  # parameters: below, one thread writes faster, for a decoding step is many small operations


@dataclass(frozen=True)
class LocalSettings:
    """How the local policy computes. `threads` are the most that it uses, None all: how many is decided by the size of the work alone, so
    that two runs decide alike; `layout` None: by a probe. The run keeps both. `critic` serves the algorithms that need values: a "head" on
    the policy's own layers (arXiv:1909.08593), "separate" for a body of its own, begun as a copy of the policy's, or a reward model's
    folder to begin it from (arXiv:2009.01325)."""

    precision: Literal["fp32", "bf16"] = "fp32"
    layout: Literal["forest", "padded"] | None = None
    threads: int | None = None
    num_slots: int = 128  # responses written at one time
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip_norm: float = 1.0
    gradient_checkpointing: bool = False
    lora: Lora | None = None  # train adapters, not the model's own weights
    optimizer: Kind = "adamw"
    offload_optimizer: bool = False  # moments in the CPU's memory
    critic: str = "head"

    def __post_init__(self) -> None:
        counts = self.num_slots >= 1 and (self.threads is None or self.threads >= 1)
        if not (counts and self.clip_norm > 0 and self.weight_decay >= 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise ValueError(
                f"got {self}; allowed: num_slots and threads 1 or more, clip_norm > 0 (.inf does not clip), weight_decay 0 or more, "
                "beta1 and beta2 from 0 to below 1, eps > 0"
            )
        if self.offload_optimizer and self.optimizer != "adamw":
            raise ValueError(f"got offload_optimizer with optimizer {self.optimizer}; allowed: one of them; offloaded moments are adamw's")


class LocalPolicy:
    """See `protocols.Policy`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: LocalSettings | None = None,
        needs: frozenset[str] = frozenset(),
        seed: int = 0,
    ) -> None:
        """`needs` is the algorithm's: with "reward" the model is a reward model, with "value" it gets a critic. An adapter begins as drawn
        from the seed."""
        self.settings = settings or LocalSettings()
        if self.settings.lora is not None:
            adapt(model, self.settings.lora, seed)
        self.threads = self.settings.threads or ALL_THREADS
        torch.set_num_threads(self.threads)
        kind = RewardModel if "reward" in needs else CausalModel
        if self.settings.layout is None:
            found = probe(model, kind)
            layout, self.said = found.layout, found.said
        else:
            layout, self.said = self.settings.layout, f"layout {self.settings.layout}, as asked"
        if self.settings.precision == "bf16":
            lighten(model)  # the probe has seen it in fp32
        self.causal = kind(model, layout, self.settings.precision)
        self.critic = make_critic(model, self.settings.critic, layout, self.settings.lora, seed) if "value" in needs else None
        if isinstance(self.causal, CausalModel):
            self.causal.critic = self.critic
        elif self.settings.lora is not None:
            self.causal.head.requires_grad_(True)  # it is new, and so small that it needs no adapter
        if self.settings.gradient_checkpointing:
            for body in filter(None, (self.causal.body, self.critic and self.critic.layers)):
                body.checkpoint_layers()
        self.tokenizer = tokenizer
        self.version = 0
        self.trained = nn.ModuleDict({"model": model} | ({} if self.critic is None else {"critic": self.critic}))
        chosen = self.settings
        self.optimizer = make_optimizer(
            self.trained.parameters(), chosen.optimizer, chosen.offload_optimizer, chosen.weight_decay,
            betas=(chosen.beta1, chosen.beta2), eps=chosen.eps,
        )  # fmt: skip

    def forward(self, forest: Forest) -> Outputs:
        """No gradients: old or reference log-probs, values, rewards."""
        use_threads(self.threads, self.causal.model, forest)
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))

    def forward_backward(self, forest: Forest, loss: LossFunction) -> Metrics:
        """Adds the gradients of one part."""
        use_threads(self.threads, self.causal.model, forest)
        forest = forest.to(self.causal.device)
        result = loss(self.causal.outputs(forest), forest)
        result.value.backward()
        return {name: float(value.detach()) for name, value in {"loss": result.value, **result.metrics}.items()}

    def optim_step(self, lr: float) -> Metrics:
        """Clips, steps and clears the gradients. Raises FloatingPointError, and changes nothing, where they are not finite."""
        for p in self.trained.parameters():
            if p.grad is None and p.requires_grad:
                p.grad = torch.zeros_like(p)  # a step that teaches nothing is still a step: the moments decay
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.settings.clip_norm))
        if norm != norm or norm == float("inf"):
            self.zero_grad()
            raise FloatingPointError(f"the gradient norm is {norm}: the update was not made")
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.zero_grad()
        self.version += 1
        return {"grad_norm": norm, "learning_rate": lr}

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def snapshot(self, copy: bool = False) -> LocalSampler:
        """Shares the weights and refuses to sample once this policy has stepped; with `copy`, holds its own."""
        version = self.version
        causal = self.frozen_copy() if copy else self.causal
        if not isinstance(causal, CausalModel):
            raise ValueError("a reward model says how good an answer is and writes none; sample from a language model")
        current: Callable[[], int] = (lambda: version) if copy else (lambda: self.version)
        threads = 1 if num_parameters(causal.model) < ONE_WRITES else self.threads
        return LocalSampler(causal, self.tokenizer, self.settings.num_slots, version, current, threads)

    def reference(self, moves: bool = False) -> LocalReference | WithoutAdapter:
        """The weights as they are, frozen: of a model with adapters that have not learned yet the model without them, else a copy."""
        if self.settings.lora is not None and self.version == 0 and not moves:
            return WithoutAdapter(self)
        return LocalReference(self.frozen_copy(), self.threads)

    def frozen_copy(self) -> CausalModel | RewardModel:
        """The model as it is now, without gradients and critic."""
        model = copy.deepcopy(self.causal.model).requires_grad_(False)
        return type(self.causal)(model, self.causal.layout, self.causal.precision)

    def save(self, folder: Path) -> None:
        """Hugging Face layout (config, safetensors, tokenizer with its template, generation_config), and trainer.pt."""
        export(self.causal.model, self.tokenizer, folder)
        trainer: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "version": self.version}
        if self.critic is not None:
            trainer["critic"] = trained_weights(self.critic)
        if self.settings.lora is not None:
            trainer["adapter"] = trained_weights(self.causal.model)
            trainer["reward_bias"] = self.causal.model.config.to_dict().get("reward_bias")
        torch.save(trainer, folder / "trainer.pt")

    def load(self, folder: Path) -> None:
        """Weights, moments and version as `save` wrote them, to the bit."""
        trainer: dict[str, Any] = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
        if self.settings.lora is None:
            take_up(self.causal.model, folder)
        else:  # beside the weights that the run began with
            take_weights(self.causal.model, trainer["adapter"])
            if trainer["reward_bias"] is not None:
                self.causal.model.config.reward_bias = trainer["reward_bias"]
        if self.critic is not None:
            take_weights(self.critic, trainer["critic"])
        self.optimizer.load_state_dict(trainer["optimizer"])  # last: moments that lie elsewhere have copies of the weights with them
        self.version = trainer["version"]


@dataclass(frozen=True)
class WithoutAdapter:
    """See `protocols.Reference`: the policy with its adapters switched off. It stays where it is."""

    policy: LocalPolicy

    def forward(self, forest: Forest) -> Outputs:
        with switched_off(self.policy.causal.model):
            return self.policy.forward(forest)

    def follow(self, policy: Policy, share: float) -> None:
        raise AssertionError("a reference that follows is asked for by reference(moves=True)")

    def save(self, folder: Path) -> None:
        raise AssertionError("what the run began with is not saved again")

    def load(self, folder: Path) -> None:
        raise AssertionError("what the run began with is loaded with it")


@dataclass(frozen=True)
class LocalReference:
    """See `protocols.Reference`."""

    causal: CausalModel | RewardModel
    threads: int = ALL_THREADS

    def forward(self, forest: Forest) -> Outputs:
        use_threads(self.threads, self.causal.model, forest)
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))

    def follow(self, policy: Policy, share: float) -> None:
        assert isinstance(policy, LocalPolicy), "a reference follows the policy that it was made from"
        take_weights(self.causal.model, trained_weights(policy.causal.model), share)

    def save(self, folder: Path) -> None:
        """With adapters these alone: the weights beside them are the policy's."""
        folder.mkdir(parents=True, exist_ok=True)
        logging.disable_progress_bar()
        if adapters(self.causal.model):
            torch.save(adapter_weights(self.causal.model), folder / "adapter.pt")
        else:
            self.causal.model.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        if adapters(self.causal.model):
            take_weights(self.causal.model, torch.load(folder / "adapter.pt", map_location="cpu", weights_only=True))
        else:
            take_up(self.causal.model, folder)


def use_threads(most: int, model: nn.Module, forest: Forest) -> None:
    """As many of torch's threads as this work is worth."""
    torch.set_num_threads(1 if num_parameters(model) * forest.tokens_N.numel() < ONE_THREAD else most)


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def take_up(model: PreTrainedModel, folder: Path) -> None:
    """The weights that `save_pretrained` wrote, to the bit, and what a reward model adds to its reward."""
    saved = type(model).from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), saved.parameters(), strict=True):
            mine.copy_(theirs)
    if "reward_bias" in saved.config.to_dict():
        model.config.reward_bias = saved.config.reward_bias


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """What transformers, vLLM and lm-eval load without a flag. The configuration names no attention of ours."""
    logging.disable_progress_bar()
    model = merged(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_attn_implementation", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if model.get_output_embeddings() is None:  # a reward model writes nothing
        return
    ends = sorted(end_tokens(model, tokenizer))
    generation = GenerationConfig() if model.generation_config is None else copy.deepcopy(model.generation_config)
    generation.update(eos_token_id=ends if len(ends) > 1 else ends[0], pad_token_id=tokenizer.pad_token_id)
    generation.save_pretrained(folder)
