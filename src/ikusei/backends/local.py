"""The policy on one device, a CPU or a GPU, in one process.

Weights, gradients and AdamW's moments are in fp32, so that updates of 1e-6 are not rounded away; with precision bf16, matrix products are
computed in bf16 (autocast). Weight decay is on matrices only. A critic is part of the policy: one optimiser, one clipped gradient norm.
Left out: sharding (a back end of its own).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ikusei.backends.export import export, restore_weights
from ikusei.backends.optimizer import Kind, make_optimizer
from ikusei.backends.reference import LocalReference, WithoutAdapter
from ikusei.backends.threads import ALL_THREADS, ONE_WRITES, num_parameters, use_threads
from ikusei.forest import Forest, Outputs
from ikusei.models.adapter import Lora, adapt, lighten, restore_trained, trained_weights
from ikusei.models.causal import CausalModel
from ikusei.models.critic import make_critic
from ikusei.models.heads import RewardModel
from ikusei.models.probe import probe
from ikusei.protocols import LossFunction, Metrics, ModelSize
from ikusei.run.formats import FORMAT, must_be_readable
from ikusei.samplers.local import LocalSampler


@dataclass(frozen=True)
class LocalSettings:
    """`threads` limits torch's threads (None: all); the number used depends on the size of the work alone, so runs are reproducible.
    `layout` None: chosen by a probe (models/probe.py). The run stores both. `critic`, for algorithms that need values: "head", a value head
    on the policy's own layers (arXiv:1909.08593); "separate", a body of its own, initialised from the policy's; or the folder of a reward
    model to initialise it from (arXiv:2009.01325)."""

    precision: Literal["fp32", "bf16"] = "fp32"
    layout: Literal["forest", "padded"] | None = None
    threads: int | None = None
    num_slots: int = 128  # responses decoded at one time
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip_norm: float = 1.0
    gradient_checkpointing: bool = False
    lora: Lora | None = None  # None: train all weights
    optimizer: Kind = "adamw"
    offload_optimizer: bool = False  # moments in CPU memory
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
        """`needs` are the algorithm's: "reward" makes the model a reward model, "value" adds a critic. `seed` initialises adapters."""
        self.settings = settings or LocalSettings()
        if self.settings.lora is not None:
            adapt(model, self.settings.lora, seed)
        self.threads = self.settings.threads or ALL_THREADS
        torch.set_num_threads(self.threads)
        kind = RewardModel if "reward" in needs else CausalModel
        if self.settings.layout is None:
            found = probe(model, kind)
            layout, self.description = found.layout, found.description
        else:
            layout, self.description = self.settings.layout, f"layout {self.settings.layout}, as asked"
        if self.settings.precision == "bf16":
            lighten(model)  # the probe has seen it in fp32
        self.causal = kind(model, layout, self.settings.precision)
        self.critic = make_critic(model, self.settings.critic, layout, self.settings.lora, seed) if "value" in needs else None
        if isinstance(self.causal, CausalModel):
            self.causal.critic = self.critic
        elif self.settings.lora is not None:
            self.causal.head.requires_grad_(True)  # a new head is trained in full
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

    @property
    def context(self) -> int:
        return self.causal.context

    @property
    def rewards(self) -> bool:
        return isinstance(self.causal, RewardModel)

    @property
    def size(self) -> ModelSize:
        numbers = [(p.numel(), p.requires_grad) for p in self.trained.parameters()]
        trained = sum(count for count, learns in numbers if learns)
        config = self.causal.model.config.get_text_config()
        whole = self.causal.model.num_parameters()  # of weights, however few bytes they take
        return ModelSize(whole, trained, sum(count for count, _ in numbers) - trained, config.hidden_size, config.num_hidden_layers)

    @property
    def facts(self) -> dict[str, Any]:
        size, causal = self.causal.model.num_parameters(), self.causal
        return {"threads": self.threads, "layout": causal.layout, "precision": causal.precision, "parameters": size}

    def forward(self, forest: Forest) -> Outputs:
        """See `protocols.ForwardPass`."""
        use_threads(self.threads, self.causal.model, forest)
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))

    def forward_backward(self, forest: Forest, loss: LossFunction) -> Metrics:
        """Adds the gradients of one micro-batch."""
        use_threads(self.threads, self.causal.model, forest)
        forest = forest.to(self.causal.device)
        result = loss(self.causal.outputs(forest), forest)
        result.value.backward()
        return {name: float(value.detach()) for name, value in {"loss": result.value, **result.metrics}.items()}

    def optim_step(self, lr: float) -> Metrics:
        """Clips, steps and clears the gradients. Raises FloatingPointError, and changes nothing, where they are not finite."""
        for p in self.trained.parameters():
            if p.grad is None and p.requires_grad:
                p.grad = torch.zeros_like(p)  # a step without gradients is still a step: the moments decay
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
        """See `protocols.Policy`. Raises ValueError for a reward model."""
        version = self.version
        causal = self.frozen_copy() if copy else self.causal
        if not isinstance(causal, CausalModel):
            raise ValueError("a reward model says how good an answer is and writes none; sample from a language model")
        current: Callable[[], int] = (lambda: version) if copy else (lambda: self.version)
        threads = 1 if num_parameters(causal.model) < ONE_WRITES else self.threads
        return LocalSampler(causal, self.tokenizer, self.settings.num_slots, version, current, threads)

    def reference(self, syncable: bool = False) -> LocalReference | WithoutAdapter:
        """The policy as it is now, frozen. For untrained adapters it is the same model with the adapters off, else a copy."""
        if self.settings.lora is not None and self.version == 0 and not syncable:
            return WithoutAdapter(self, self.causal)
        return LocalReference(self.frozen_copy(), self.causal, self.threads)

    def frozen_copy(self) -> CausalModel | RewardModel:
        """A copy of the model as it is now, without gradients and critic."""
        model = copy.deepcopy(self.causal.model).requires_grad_(False)
        return type(self.causal)(model, self.causal.layout, self.causal.precision)

    def rescale(self, gain: float, bias: float) -> None:
        assert isinstance(self.causal, RewardModel), "only rewards have a scale"
        self.causal.rescale(gain, bias)

    def export(self, folder: Path) -> None:
        """Hugging Face layout: config, safetensors with adapters merged, tokenizer with its template, generation_config."""
        export(self.causal.model, self.tokenizer, folder)

    def save(self, folder: Path) -> None:
        """What `export` writes, and trainer.pt."""
        export(self.causal.model, self.tokenizer, folder)
        trainer: dict[str, Any] = {"format": FORMAT, "optimizer": self.optimizer.state_dict(), "version": self.version}
        if self.critic is not None:
            trainer["critic"] = trained_weights(self.critic)
        if self.settings.lora is not None:
            trainer["adapter"] = trained_weights(self.causal.model)
            trainer["reward_bias"] = self.causal.model.config.to_dict().get("reward_bias")
        torch.save(trainer, folder / "trainer.pt")

    def load(self, folder: Path) -> None:
        """Restores weights, moments and version, bit-equal. Raises ValueError for a checkpoint of a newer format."""
        trainer: dict[str, Any] = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
        must_be_readable(trainer, folder / "trainer.pt")
        if self.settings.lora is None:
            restore_weights(self.causal.model, folder)
        else:  # the base weights are those that the run was started with
            restore_trained(self.causal.model, trainer["adapter"])
            if trainer["reward_bias"] is not None:
                self.causal.model.config.reward_bias = trainer["reward_bias"]
        if self.critic is not None:
            restore_trained(self.critic, trainer["critic"])
        self.optimizer.load_state_dict(trainer["optimizer"])  # last: offloaded moments copy the weights
        self.version = trainer["version"]
