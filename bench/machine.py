"""What the machine can do, measured, and what a step asks of it, counted by hand.

    forward of a token      2 * (weights in the layers' matrices)  +  4 * layers * heads * head_dim * (tokens it looks at)
    head of a scored row    2 * hidden * words
    training                3 * forward (once forward, twice backward), of the forest's tokens: each prompt once, nothing padded
    sampling                forward of each prompt once and of each written token, head of each written token

    bytes of sampling       the weights once for each decoding step  +  the keys and values that each written token looks at
    attainable time         the larger of operations / peak and bytes / bandwidth

Left out: norms, activations, softmax, the optimiser, and whatever is computed twice.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sides import Asked, settle

SIZE, BYTES = 3072, 1 << 28  # of the product, and of what is copied
Tree = tuple[int, list[int], bool]  # tokens of the prompt, of each response, and whether it was learned from


@dataclass(frozen=True)
class Shape:
    """A model, as far as its cost goes. `weights` are those of the layers' matrices."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    inner: int
    words: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        said = json.loads((folder / "config.json").read_text())
        heads, hidden = said["num_attention_heads"], said["hidden_size"]
        head_dim = said.get("head_dim") or hidden // heads
        layers, keys = said["num_hidden_layers"], said["num_key_value_heads"]
        return cls(layers, hidden, heads, keys, head_dim, said["intermediate_size"], said["vocab_size"])

    @property
    def weights(self) -> int:
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    def forward(self, tokens: int, looked_at: int, scored: int) -> float:
        """Operations: `looked_at` sums, over the tokens, how many each one looks at."""
        attention = 4 * self.layers * self.heads * self.head_dim * looked_at
        return 2.0 * self.weights * tokens + attention + 2.0 * self.hidden * self.words * scored


def looked_at(prompt: int, answer: int) -> int:
    """Sum over an answer's tokens of prompt + own position; for the prompt itself (0, prompt)."""
    return answer * prompt + answer * (answer + 1) // 2


def training_operations(shape: Shape, trees: Sequence[Tree], words: bool = True) -> float:
    """Of the trees that were learned from. Without `words` there is no head over a vocabulary (reward models)."""
    total = 0.0
    for prompt, answers, kept in trees:
        seen = looked_at(0, prompt) + sum(looked_at(prompt, answer) for answer in answers)
        total += shape.forward(prompt + sum(answers), seen, sum(answers) * words) if kept else 0.0
    return 3 * total


def sampling_cost(shape: Shape, trees: Sequence[Tree], slots: int, size: int) -> tuple[float, float]:
    """(operations, bytes) of writing the answers, `slots` at a time; a number takes `size` bytes."""
    operations, read, written = 0.0, 0.0, [answer for _, answers, _ in trees for answer in answers]
    for prompt, answers, _ in trees:
        operations += shape.forward(prompt, looked_at(0, prompt), 0)
        for answer in answers:
            seen = looked_at(prompt, answer)
            operations += shape.forward(answer, seen, answer)
            read += 2 * shape.layers * shape.key_heads * shape.head_dim * seen * size
    steps = max(max(written), -(-sum(written) // slots))
    return operations, read + steps * size * (shape.weights + shape.hidden * shape.words)


def serve(asked: Asked) -> None:
    asked.ready(measure())


def measure() -> dict[str, Any]:
    """Peaks at one thread and at all: operations a second of a large product, and bytes a second of a copy (read and written)."""
    import torch
    import transformers
    import trl

    counts = sorted({1, torch.get_num_threads()})
    found = {str(threads): peaks(threads) for threads in counts}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    return {"processor": _processor(), "cores": counts[-1], "memory_gib": round(_memory_gib(), 1), **versions, "peaks": found}


def peaks(threads: int) -> dict[str, float]:
    """Operations a second in fp32 and bf16, and bytes a second of a copy."""
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(SIZE, SIZE).to(device, kind) for _ in range(2))
        found[name] = 2 * SIZE**3 / _fastest(lambda a=a, b=b: a @ b)
    source, target = torch.ones(BYTES // 4, device=device), torch.empty(BYTES // 4, device=device)
    found["copy"] = 2 * BYTES / _fastest(lambda: target.copy_(source))
    return found


def _fastest(work: Callable[[], Any], times: int = 6) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        settle()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    import psutil

    return psutil.virtual_memory().total / 2**30
