"""Law 1, the head: logits over a large vocabulary never exist as a whole, forward or backward, however many tokens are scored."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import worlds
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import plant
from ikusei.types import Group, Prompt, Response

VOCABULARY = 151_936


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors that were alive at one time since it was entered."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known = weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self.known:
                self.known.add(storage)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return out

    def forget(self, num_bytes: int) -> None:
        self.alive -= num_bytes


def peak_mb(policy: LocalPolicy, num_tokens: int) -> float:
    """Of a forward and backward over so many scored tokens."""
    tokens = tuple(range(num_tokens))
    forest = plant([Group(Prompt("p", (1,), ""), (Response(tokens, (True,) * num_tokens, ""),))])
    with PeakBytes() as memory:
        policy.forward_backward(forest, LanguageModelling().loss)
    policy.zero_grad()
    return memory.peak / 2**20


def make_wide_policy() -> LocalPolicy:
    config = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=VOCABULARY, **config))
    return LocalPolicy(model, worlds.IDS, LocalSettings(layout="forest"))


def test_memory_does_not_grow_with_the_scored_tokens() -> None:
    policy = make_wide_policy()
    few, many = peak_mb(policy, 81), peak_mb(policy, 243)
    whole = 162 * VOCABULARY * 4 / 2**20  # what the logits of the other 162 tokens alone would take
    print(f"peak {few:.0f} MiB for 81 scored tokens, {many:.0f} MiB for 243; their logits would be {whole:.0f} MiB more")
    assert few > 16, "the measurement saw nothing"
    assert many - few < 0.05 * whole
