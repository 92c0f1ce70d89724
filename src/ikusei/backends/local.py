"""One process, one device: a CPU or a GPU. The plain policy.

Weights, gradients and AdamW's moments are in fp32; with precision bf16 the products are computed in bf16 (autocast), so that a step of 1e-6
still arrives in the weights. Weight decay is on matrices only. Left out: sharding (a back end of its own).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ikusei.forest import Forest, Outputs
from ikusei.models.causal import CausalModel
from ikusei.models.probe import probe
from ikusei.protocols import LossFunction, Metrics
from ikusei.samplers.local import LocalSampler, end_tokens

ONE_THREAD = 10_000_000  # below so many parameters one thread is as fast as two, and ten times faster where the cores are shared


@dataclass(frozen=True)
class LocalSettings:
    """How the local policy computes. `threads` None: by the size of the model, so that two runs decide alike; `layout` None: by a probe.
    The run keeps what was decided."""

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

    def __post_init__(self) -> None:
        counts = self.num_slots >= 1 and (self.threads is None or self.threads >= 1)
        if not (counts and self.clip_norm > 0 and self.weight_decay >= 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise ValueError(
                f"got {self}; allowed: num_slots and threads 1 or more, clip_norm > 0 (.inf does not clip), weight_decay 0 or more, "
                "beta1 and beta2 from 0 to below 1, eps > 0"
            )


class LocalPolicy:
    """See `protocols.Policy`."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: LocalSettings | None = None) -> None:
        self.settings = settings or LocalSettings()
        small = sum(p.numel() for p in model.parameters()) < ONE_THREAD
        self.threads = self.settings.threads or (1 if small else torch.get_num_threads())
        torch.set_num_threads(self.threads)
        if self.settings.layout is None:
            found = probe(model)
            layout, self.said = found.layout, found.said
        else:
            layout, self.said = self.settings.layout, f"layout {self.settings.layout}, as asked"
        self.causal = CausalModel(model, layout, self.settings.precision)
        if self.settings.gradient_checkpointing:
            self.causal.checkpoint_layers()
        self.tokenizer = tokenizer
        self.version = 0
        self.optimizer = _adamw(model, self.settings)

    def forward(self, forest: Forest) -> Outputs:
        """No gradients: old or reference log-probs."""
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))

    def forward_backward(self, forest: Forest, loss: LossFunction) -> Metrics:
        """Adds the gradients of one part."""
        forest = forest.to(self.causal.device)
        result = loss(self.causal.outputs(forest), forest)
        result.value.backward()
        return {name: float(value.detach()) for name, value in {"loss": result.value, **result.metrics}.items()}

    def optim_step(self, lr: float) -> Metrics:
        """Clips, steps and clears the gradients. Raises FloatingPointError, and changes nothing, where they are not finite."""
        for p in self.causal.model.parameters():
            if p.grad is None and p.requires_grad:
                p.grad = torch.zeros_like(p)  # a step that teaches nothing is still a step: the moments decay
        norm = float(torch.nn.utils.clip_grad_norm_(self.causal.model.parameters(), self.settings.clip_norm))
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
        current: Callable[[], int] = (lambda: version) if copy else (lambda: self.version)
        return LocalSampler(causal, self.tokenizer, self.settings.num_slots, version, current)

    def reference(self) -> LocalReference:
        """A frozen copy of the weights as they are."""
        return LocalReference(self.frozen_copy())

    def frozen_copy(self) -> CausalModel:
        """The model as it is now, without gradients."""
        model = copy.deepcopy(self.causal.model).requires_grad_(False)
        return CausalModel(model, self.causal.layout, self.causal.precision)

    def save(self, folder: Path) -> None:
        """Hugging Face layout (config, safetensors, tokenizer with its template, generation_config), and trainer.pt."""
        export(self.causal.model, self.tokenizer, folder)
        torch.save({"optimizer": self.optimizer.state_dict(), "version": self.version}, folder / "trainer.pt")

    def load(self, folder: Path) -> None:
        """Weights, moments and version as `save` wrote them, to the bit."""
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            for mine, theirs in zip(self.causal.model.parameters(), saved.parameters(), strict=True):
                mine.copy_(theirs)
        trainer: dict[str, Any] = torch.load(folder / "trainer.pt", weights_only=True)
        self.optimizer.load_state_dict(trainer["optimizer"])
        self.version = trainer["version"]


@dataclass(frozen=True)
class LocalReference:
    """A policy that can only be asked."""

    causal: CausalModel

    def forward(self, forest: Forest) -> Outputs:
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """What transformers, vLLM and lm-eval load without a flag. The configuration names no attention of ours."""
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_attn_implementation", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    ends = sorted(end_tokens(model, tokenizer))
    generation = GenerationConfig() if model.generation_config is None else copy.deepcopy(model.generation_config)
    generation.update(eos_token_id=ends if len(ends) > 1 else ends[0], pad_token_id=tokenizer.pad_token_id)
    generation.save_pretrained(folder)


def _adamw(model: PreTrainedModel, settings: LocalSettings) -> torch.optim.AdamW:
    """Weight decay on matrices; norms and biases are left alone."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True)
