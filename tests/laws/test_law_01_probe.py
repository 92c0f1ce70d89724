"""Law 1, the probe: a model is laid out as a forest, padded, or refused by what it computes, never by its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import worlds
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from ikusei.models.probe import TOLERANCE, probe


@pytest.mark.parametrize("name", worlds.ARCHITECTURES)
def test_each_architecture_gets_the_layout_that_is_right_for_it(name: str) -> None:
    found = probe(worlds.make_model(name))
    assert found.layout == worlds.ARCHITECTURES[name][0]
    assert found.gap[found.layout] < TOLERANCE / 10
    assert f"layout {found.layout}" in found.description
    if found.layout == "padded":
        assert found.gap["forest"] > 100 * TOLERANCE


class Louder(LlamaForCausalLM):
    """A head that does something no configuration speaks of."""

    def forward(self, *args: Any, **kwargs: Any) -> CausalLMOutputWithPast:
        out = super().forward(*args, **kwargs)
        assert out.logits is not None
        return CausalLMOutputWithPast(logits=out.logits * 1.5, past_key_values=out.past_key_values)


def test_an_unknown_head_is_refused() -> None:
    config = LlamaConfig(**worlds.ARCHITECTURES["llama"][2])
    with pytest.raises(ValueError, match=r"Louder.*forest.*padded.*allowed.*use another architecture"):
        probe(Louder(config))


class Mixing(Qwen3ForCausalLM):
    """A body in which every row hears of the row before it, whosever that is."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__(config)
        self.model.embed_tokens.register_forward_hook(self.mix)

    def mix(self, module: Any, args: Any, out: Any) -> torch.Tensor:
        return out + 0.5 * F.pad(out, (0, 0, 1, -1))


def test_a_body_that_mixes_siblings_is_padded() -> None:
    config = Qwen3Config(**worlds.ARCHITECTURES["qwen3"][2])
    found = probe(Mixing(config))
    assert found.layout == "padded"
    assert found.gap["forest"] > 100 * TOLERANCE


def test_a_small_context_still_can_be_probed() -> None:
    """Learned positions, fewer of them than the probe would like."""
    config = {**worlds.ARCHITECTURES["gpt2 dropout"][2], "n_positions": 16}
    assert probe(AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **config))).layout == "forest"


@pytest.mark.parametrize("name", [name for name, (layout, *_) in worlds.ARCHITECTURES.items() if layout == "padded"])
def test_small_fresh_weights_do_not_hide_a_difference(name: str) -> None:
    """A model as it is usually begun, where layers hardly do anything yet."""
    _, kind, config = worlds.ARCHITECTURES[name]
    torch.manual_seed(0)
    small = {**config, "initializer_range": 0.02, "hidden_size": 128, "num_hidden_layers": len(config.get("layer_types", "12"))}
    assert probe(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small))).layout == "padded"
