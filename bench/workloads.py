"""What is measured: each workload as one frozen value, from the shape of the model to the number of steps.

Lengths are in tokens. `steps` are measured, after `warmup` ones that are not. Left out: how a side computes (`ours.py`, `theirs.py`), and
the rows themselves (`data.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["grpo", "dpo", "reward", "sft", "skip"]


@dataclass(frozen=True)
class Model:
    """A configuration of transformers, of random weights."""

    architecture: str
    config: Mapping[str, Any]

    @property
    def words(self) -> int:
        return self.config["vocab_size"]


def qwen3(hidden: int, layers: int, heads: int, head_dim: int, inner: int, words: int) -> Model:
    """Half as many heads of keys as of queries, input and output words tied."""
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads // 2}
    return Model("qwen3", {**shape, "head_dim": head_dim, "intermediate_size": inner, "vocab_size": words, "tie_word_embeddings": True})


SMALL = qwen3(hidden=256, layers=4, heads=4, head_dim=64, inner=768, words=1_000)  # 3.4 M parameters
WORDY = qwen3(hidden=128, layers=4, heads=4, head_dim=32, inner=384, words=151_936)  # 20.2 M, nearly all of them words
MIDDLE = qwen3(hidden=384, layers=8, heads=6, head_dim=64, inner=1408, words=8_000)  # 19.6 M
QWEN25 = Model(
    "qwen2",
    {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
        "vocab_size": 151_936, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """`model` None is the embedded seedling, which does sums. `examples` are what a step takes: prompts, pairs, rankings or texts.
    `at_least` and `aim` are the ratios to reach, theirs over ours, and `memory` the most that ours may take of theirs."""

    name: str
    title: str
    kind: Kind
    model: Model | None
    examples: int
    num_responses: int
    prompt: int
    response: int
    lr: float
    at_least: float
    aim: float
    memory: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    steps: int = 7
    warmup: int = 2
    hard: bool = False  # sums of many digits among the easy ones, so that answers are ragged
    packed: bool = True  # TRL's side of supervised fine-tuning
    tokens_per_microbatch: int = 8192  # ours: how many tokens an update lays out at one time
    apart: bool = False  # the two sides do not fit into memory together, so one waits until the other has ended

    @property
    def rows(self) -> int:
        return self.examples * (self.steps + self.warmup)


WORKLOADS = {
    each.name: each
    for each in (
        Workload("W1", "short: sums, ≤ 64 new, 8 × 8", "grpo", None, 8, 8, 16, 64, 5e-5, 2.0, 3.0, steps=9),
        Workload("W2", "ragged: sums easy and hard, cap 256, 16 × 8", "grpo", None, 16, 8, 32, 256, 5e-5, 3.0, 6.0, hard=True),
        Workload("W3", "long prompt: 512 + 32, 4 × 16, 3.4 M", "grpo", SMALL, 4, 16, 512, 32, 1e-3, 8.0, 12.0),
        Workload("W4", "151,936 words: 128 + 64, 4 × 8, 20 M", "grpo", WORDY, 4, 8, 128, 64, 2e-3, 3.0, 5.0, 0.5, steps=5, warmup=1),
        Workload("W5", "half of the groups teach nothing: skipped against not", "skip", None, 16, 8, 32, 256, 5e-5, 1.6, 1.9, hard=True),
        Workload("W6", "DPO: 512 + 2 × 64, 16 pairs, 3.4 M", "dpo", SMALL, 16, 2, 512, 64, 2e-4, 1.5, 1.8),
        Workload("W7", "reward model: 256 + 8 × 64, 2 rankings of 8, 3.4 M", "reward", SMALL, 2, 8, 256, 64, 2e-4, 4.0, 8.0, 0.6),
        Workload(
            "W8", "SFT on ragged texts, 20 M, TRL packed", "sft", MIDDLE, 64, 1, 0, 512, 1e-3, 1.3, 2.0,
            steps=5, warmup=1, tokens_per_microbatch=2048,
        ),
        Workload(
            "W8 padded", "as W8, TRL padded", "sft", MIDDLE, 64, 1, 0, 512, 1e-3, 2.0, 3.0,
            steps=5, warmup=1, tokens_per_microbatch=2048, packed=False,
        ),
        Workload(
            "W9", "0.5 B Qwen2.5, bf16: 128 + 32, 4 × 8", "grpo", QWEN25, 4, 8, 128, 32, 1e-4, 3.0, 5.0, 0.7,
            precision="bf16", steps=2, warmup=1, apart=True,
        ),
    )
}  # fmt: skip
