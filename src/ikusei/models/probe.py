"""Chooses a model's layout by a numerical test at loading time, not by its name: small trees are run in each layout and compared with the
plain transformers model.

If the forest layout gives the plain model's log-probs (or rewards), it is used. If not (recurrent and linear-attention layers mix
siblings), the padded layout is tested in the same way. If that differs too (an unknown scaling in the head), the model is refused.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from ikusei.forest import Forest, Outputs, plant
from ikusei.models.body import configured, plain_attention, root_and_leaf
from ikusei.models.causal import CausalModel
from ikusei.models.heads import RewardModel
from ikusei.types import Group, Prompt, Response

Kind = type[CausalModel] | type[RewardModel]

TOLERANCE = 2e-4  # of log-probs or rewards in fp32, absolute; rounding alone stays below a tenth of it
SIBLINGS = 5e-6  # largest influence of one leaf's tokens on the outputs of its siblings: rounding alone
SMALLEST = 12  # tokens of context
LONGEST = 8192  # windows beyond this are not crossed by the probe


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found: the layout to use, the largest difference of each layout tried (of log-probs, nats), and a description for a
    person."""

    layout: str
    gap: dict[str, float]
    description: str


def probe(model: PreTrainedModel, kind: Kind = CausalModel) -> Probe:
    """Choose the layout of a model, or raise ValueError where none is right."""
    forest = plant(_trees(model)).to(model.device)
    plain = _plain_logp(model, forest) if kind is CausalModel else _plain_reward(model, forest)
    outputs = "log-probs" if kind is CausalModel else "rewards"
    if not plain.isfinite().all():
        raise ValueError(f"model {type(model).__name__}: its {outputs} are not finite; its weights are damaged; load another copy")
    gap: dict[str, float] = {}
    for layout in ("forest", "padded"):
        gap[layout] = _gap(kind, model, layout, forest, plain)
        if gap[layout] <= TOLERANCE:
            why = "" if layout == "forest" else " (in the forest its layers would mix siblings, or it cannot run there)"
            return Probe(layout, gap, f"layout {layout}: {outputs} equal the plain model's to {gap[layout]:.1g}{why}")
    raise ValueError(
        f"model {type(model).__name__}: {outputs} differ from the plain model's by {gap['forest']:.2g} in the forest and by "
        f"{gap['padded']:.2g} padded; allowed: {TOLERANCE:g}. Its head or layers do something that Ikusei does not know; "
        "use another architecture, or report this with its config.json"
    )


def _gap(kind: Kind, model: PreTrainedModel, layout: str, forest: Forest, plain: torch.Tensor) -> float:
    """The largest difference to the plain model. Infinite where the model cannot run in this layout, or where siblings influence each
    other: with freshly initialised weights that influence may be small, and it grows in training."""
    try:
        with torch.no_grad():
            net = kind(model, layout)
            values = _values(net.outputs(forest))
            changed = _values(net.outputs(replace(forest, tokens_N=torch.where(forest.leaf_N != 0, forest.tokens_N, 0))))
            beside = forest.response_M != 0 if kind is CausalModel else torch.arange(forest.num_responses, device=values.device) != 0
            moved = float((changed - values)[beside].abs().max())
            gap = float((values - plain).abs().max().nan_to_num(nan=float("inf")))
            return gap if moved <= SIBLINGS else float("inf")
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError):  # it refuses the layout in its own words
        return float("inf")


def _values(out: Outputs) -> torch.Tensor:
    return out.logp_M if out.reward_R is None else out.reward_R


@torch.no_grad()
def _plain_reward(model: PreTrainedModel, forest: Forest) -> torch.Tensor:
    """[R] from transformers' own forward, one response at a time."""
    model.eval().set_attn_implementation(plain_attention(model))
    rows = [torch.cat([forest.tokens_N[root], forest.tokens_N[leaf]]) for root, leaf in root_and_leaf(forest)]
    values = torch.cat([model(input_ids=row[None], use_cache=False).logits[0].float() for row in rows])
    return values + model.config.to_dict().get("reward_bias", 0.0)


@torch.no_grad()
def _plain_logp(model: PreTrainedModel, forest: Forest) -> torch.Tensor:
    """[M] from transformers' own forward, one response at a time."""
    model.eval().set_attn_implementation(plain_attention(model))
    logp = torch.empty(forest.target_M.shape, device=model.device)
    first = 0
    for root, leaf in root_and_leaf(forest):
        row = torch.cat([forest.tokens_N[root], forest.tokens_N[leaf]])
        size = leaf.stop - leaf.start
        logits = model(input_ids=row[None], use_cache=False).logits[0, -size - 1 : -1].float()
        logp[first : first + size] = logits.log_softmax(-1).gather(1, row[-size:, None]).squeeze(1)
        first += size
    return logp


def _trees(model: PreTrainedModel) -> list[Group]:
    """Two trees of different lengths; the first root ends just inside the sliding window, so that its leaves cross it."""
    window, context = configured(model, "sliding_window", 0), configured(model, "max_position_embeddings", LONGEST)
    vocabulary = configured(model, "vocab_size")
    if context < SMALLEST:
        raise ValueError(f"model {type(model).__name__}: its context holds {context} tokens; allowed: {SMALLEST} or more")
    long = max(5, min(window - 2, context - 7, LONGEST))
    chance, pad = random.Random(0), configured(model, "pad_token_id")  # a classifier takes padding for the end
    allowed = [token for token in range(vocabulary) if token != pad]
    tokens = lambda n: tuple(chance.choices(allowed, k=n))  # noqa: E731
    group = lambda root, *leaves: Group(  # noqa: E731
        Prompt("probe", tokens(root), ""), tuple(Response(tokens(n), (True,) * n, "") for n in leaves)
    )
    return [group(long, 7, 3, 5), group(3, 4, 6)]
