"""The three ways of the forest's attention say the same, forward and backward; so does a product laid out for the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ikusei.backends import threads
from ikusei.forest import Forest, plant
from ikusei.models.attention import ForestLayout, Form
from ikusei.models.flash import attention_calls, flash_forest
from ikusei.models.flex import FlexForest
from ikusei.models.packed_linear import prepacked
from ikusei.types import Group, Prompt, Response

SHAPES = {
    "short and long, one leaf and many": [
        (5, (3, 7, 20)),
        (70, (3, 100, 5)),
        (80, (9,)),
        (3, (12,)),
        (10, (60, 30)),
        (64, (64, 64)),
        (7, ()),
    ],
    "one long root": [(130, (8,) * 6)],
    "pairs": [(9, (11, 4)), (9, (11, 4)), (66, (70, 2))],
}


def forest_of(shape: list[tuple[int, tuple[int, ...]]]) -> Forest:
    group = lambda g, root, leaves: Group(  # noqa: E731
        Prompt(str(g), (1,) * root, ""), tuple(Response((2,) * n, (True,) * n, "") for n in leaves)
    )
    return plant([group(g, *tree) for g, tree in enumerate(shape)])


def inputs(N: int, heads: int, key_heads: int) -> list[Tensor]:
    chance = torch.Generator().manual_seed(N)
    return [torch.randn(N, count, 16, generator=chance).requires_grad_() for count in (heads, key_heads, key_heads)]


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)], ids=["as many heads of keys", "heads share keys"])
@pytest.mark.parametrize("name", SHAPES)
def test_runs_and_batches_equal_blocks(name: str, heads: tuple[int, int]) -> None:
    forest = forest_of(SHAPES[name])
    x = inputs(forest.tokens_N.numel(), *heads)
    by_blocks = ForestLayout(forest)._by_blocks(*x, Form(0.3))
    by_runs = flash_forest(*x, attention_calls(forest.trees), 0.3)
    torch.testing.assert_close(by_runs, by_blocks, rtol=1e-5, atol=2e-6)
    weight = torch.randn(by_runs.shape, generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(*(torch.autograd.grad(out, x, weight) for out in (by_runs, by_blocks)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (16, None), (None, 5.0), (16, 5.0)])
def test_the_tree_as_a_mask_equals_blocks(window: int | None, softcap: float | None) -> None:
    """What a GPU compiles, here computed in full."""
    forest = forest_of(SHAPES["short and long, one leaf and many"])
    x = [each.detach() for each in inputs(forest.tokens_N.numel(), 6, 2)]
    by_blocks = ForestLayout(forest)._by_blocks(*x, Form(0.3, window, softcap))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        by_mask = FlexForest(forest).attend(*(each.transpose(0, 1)[None] for each in x), 0.3, window, softcap)
    torch.testing.assert_close(by_mask[0].transpose(0, 1), by_blocks, rtol=1e-5, atol=2e-6)


def test_threads_by_the_size_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model, forest, before = torch.nn.Linear(30, 10), forest_of([(5, (3, 7))]), torch.get_num_threads()  # 310 weights, 15 tokens
    found = []
    for border in (310 * 15 + 1, 310 * 15):
        monkeypatch.setattr(threads, "ONE_THREAD", border)
        threads.use_threads(3, model, forest)
        found.append(torch.get_num_threads())
    torch.set_num_threads(before)
    assert found == [1, 3]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_product_laid_out_once(dtype: torch.dtype, tolerance: float) -> None:
    chance = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(*shape, generator=chance).to(dtype) for shape in ((900, 500), (900,), (3, 7, 500)))
    torch.testing.assert_close(prepacked(weight, bias, 7)(x), F.linear(x, weight, bias), rtol=tolerance, atol=20 * tolerance)


AVX2_ONLY = """
import torch
from ikusei.models.packed_linear import prepacked
weight, bias, x = torch.ones(3, 5).bfloat16(), torch.tensor([1.0, 2.0, 4.0]).bfloat16(), torch.full((2, 1, 5), 0.5)
assert prepacked(weight, bias, 2)(x).tolist() == [[[3.5, 4.5, 6.5]]] * 2
assert prepacked(weight, None, 2)(x).tolist() == [[[2.5, 2.5, 2.5]]] * 2
"""


def test_a_product_in_bf16_on_a_cpu_without_instructions_for_it() -> None:
    """oneDNN, told to use no more than AVX2, refuses to lay out a bf16 matrix, as it does on such a CPU."""
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", AVX2_ONLY], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
