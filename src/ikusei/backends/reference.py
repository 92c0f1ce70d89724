"""Reference policies: frozen, asked for log-probs alone. One is the policy with its adapters off, the other a copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from ikusei.backends.export import restore_weights
from ikusei.backends.threads import ALL_THREADS, use_threads
from ikusei.forest import Forest, Outputs
from ikusei.models.adapter import adapter_weights, adapters, switched_off, take_weights, trained_weights
from ikusei.models.causal import CausalModel
from ikusei.models.heads import RewardModel
from ikusei.protocols import Policy


@dataclass(frozen=True)
class WithoutAdapter:
    """See `protocols.Reference`: the policy with its adapters switched off. It stays where it is."""

    policy: Policy
    causal: CausalModel | RewardModel  # the policy's model, whose adapters are switched off while it is asked

    def forward(self, forest: Forest) -> Outputs:
        with switched_off(self.causal.model):
            return self.policy.forward(forest)

    def follow(self, share: float) -> None:
        raise AssertionError("a reference that follows is asked for by reference(moves=True)")

    def save(self, folder: Path) -> None:
        raise AssertionError("what the run began with is not saved again")

    def load(self, folder: Path) -> None:
        raise AssertionError("what the run began with is loaded with it")


@dataclass(frozen=True)
class LocalReference:
    """See `protocols.Reference`."""

    causal: CausalModel | RewardModel
    source: CausalModel | RewardModel  # the policy's own, which it may follow
    threads: int = ALL_THREADS

    def forward(self, forest: Forest) -> Outputs:
        use_threads(self.threads, self.causal.model, forest)
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))

    def follow(self, share: float) -> None:
        take_weights(self.causal.model, trained_weights(self.source.model), share)

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
            restore_weights(self.causal.model, folder)
