"""Reference policies, for log-probs without gradient: the policy with its adapters switched off, or a frozen copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from ikusei.backends.export import restore_weights
from ikusei.backends.threads import ALL_THREADS, use_threads
from ikusei.forest import Forest, Outputs
from ikusei.models.adapter import adapter_weights, adapters, restore_trained, switched_off, trained_weights
from ikusei.models.causal import CausalModel
from ikusei.models.heads import RewardModel
from ikusei.protocols import Policy


@dataclass(frozen=True)
class WithoutAdapter:
    """The policy with its adapters switched off: a reference that costs no memory and cannot be synced. See `protocols.Reference`."""

    policy: Policy
    causal: CausalModel | RewardModel  # the policy's model

    def forward(self, forest: Forest) -> Outputs:
        with switched_off(self.causal.model):
            return self.policy.forward(forest)

    def sync(self, share: float) -> None:
        raise AssertionError("this reference cannot be synced; make it by reference(syncable=True)")

    def save(self, folder: Path) -> None:
        raise AssertionError("the initial weights are not saved again")

    def load(self, folder: Path) -> None:
        raise AssertionError("the initial weights are loaded with the run")


@dataclass(frozen=True)
class LocalReference:
    """A frozen copy of the policy. See `protocols.Reference`."""

    causal: CausalModel | RewardModel
    source: CausalModel | RewardModel  # the trained policy's, to sync with
    threads: int = ALL_THREADS

    def forward(self, forest: Forest) -> Outputs:
        use_threads(self.threads, self.causal.model, forest)
        with torch.no_grad():
            return self.causal.outputs(forest.to(self.causal.device))

    def sync(self, share: float) -> None:
        restore_trained(self.causal.model, trained_weights(self.source.model), share)

    def save(self, folder: Path) -> None:
        """Writes the adapters alone, where there are any: the base weights are the policy's."""
        folder.mkdir(parents=True, exist_ok=True)
        logging.disable_progress_bar()
        if adapters(self.causal.model):
            torch.save(adapter_weights(self.causal.model), folder / "adapter.pt")
        else:
            self.causal.model.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        if adapters(self.causal.model):
            restore_trained(self.causal.model, torch.load(folder / "adapter.pt", map_location="cpu", weights_only=True))
        else:
            restore_weights(self.causal.model, folder)
