"""Groups -> tensors. The only file that lays tokens out.

A batch is a forest: each prompt is a root laid out once, each response a leaf that hangs on it. Nothing is padded and no prompt is
repeated. Positions restart at the root's end for each leaf; a token attends to its own leaf up to itself, and to its root.

    tokens     p0 p1 p2 | a0 a1 a2 | b0 b1 | c0 c1 c2      two more trees may follow in the same row
    position   0  1  2  | 3  4  5  | 3  4  | 3  4  5
    leaf       -1 -1 -1 | 0  0  0  | 1  1  | 2  2  2

Letters that end names say which axis a tensor runs along:
    N tokens laid out    M target tokens    R responses    G groups    P pairs (better, worse)

Index t means tokens[t]: `target_M[i]` is a target token and `predicts_M[i]` the row on N whose hidden state predicts it. Losses are flat
vectors over M; `sum_R` and `sum_G` add them up. They divide by the whole step's `Denominators`, so micro-batches add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate

import torch
from torch import Tensor

from ikusei.types import Group, Response

POINTS_ALONG = {  # tensors of indices, and the axis that they index
    "leaf_N": "R", "predicts_M": "N", "response_M": "R", "last_R": "N", "group_R": "G", "better_P": "R", "worse_P": "R",
}  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """A model's outputs on a forest. `logp_M` and `entropy_M` are in nats, at each leaf's temperature."""

    logp_M: Tensor
    entropy_M: Tensor
    value_M: Tensor | None = None  # of a critic: the value before each target token
    reward_R: Tensor | None = None  # of a reward model: read at each leaf's last token; logp_M is then empty


@dataclass(frozen=True)
class Loss:
    """A loss and its metrics; both add up over the micro-batches of a step."""

    value: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Denominators:
    """The counts that losses and metrics of one optimiser step are divided by. `tokens` are target tokens. Groups skipped for want of a
    learning signal count too; only `laid_tokens`, for metrics of the computed tokens, leaves them out."""

    tokens: float
    responses: float
    pairs: float
    groups: float
    laid_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Tree:
    """The place of one group: its first row on N, the length of its root and of each leaf."""

    start: int
    root: int
    leaves: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.root + sum(self.leaves)


@dataclass(frozen=True)
class Forest:
    """A batch as tensors. Made by `plant`; `split` gives micro-batches."""

    trees: tuple[Tree, ...]
    tokens_N: Tensor
    position_N: Tensor
    leaf_N: Tensor  # index on R, -1 in a root
    predicts_M: Tensor  # row on N
    target_M: Tensor  # token id
    response_M: Tensor  # index on R
    position_M: Tensor  # position of the target token
    last_R: Tensor  # row on N of each leaf's last token
    group_R: Tensor  # index on G
    temperature_R: Tensor
    weight_G: Tensor
    better_P: Tensor  # index on R
    worse_P: Tensor  # index on R
    denominators: Denominators
    streams: Mapping[str, Tensor] = field(default_factory=dict)  # further tensors, named by their axis: advantage_M, ref_logp_M, ...

    @property
    def num_responses(self) -> int:
        return self.group_R.numel()

    totals = property(lambda self: self.denominators)  # the name in 0.1, which users' own algorithms read

    def __getitem__(self, name: str) -> Tensor:
        return self.streams[name]

    def sum_R(self, x_M: Tensor) -> Tensor:
        """[M] -> [R]: the sum over each response's target tokens."""
        return x_M.new_zeros(self.num_responses).index_add(0, self.response_M, x_M)

    def sum_G(self, x_R: Tensor) -> Tensor:
        """[R] -> [G]: the sum over each group's responses."""
        return x_R.new_zeros(self.weight_G.numel()).index_add(0, self.group_R, x_R)

    @property
    def length_R(self) -> Tensor:
        """[R] the number of target tokens of each response."""
        return self.sum_R(torch.ones_like(self.target_M, dtype=torch.float32))

    @property
    def weight_M(self) -> Tensor:
        """[M] the weight of each target token: its group's, times the stream `importance_M` where there is one."""
        weight_M = self.weight_G[self.group_R[self.response_M]]
        return weight_M * self["importance_M"] if "importance_M" in self.streams else weight_M

    @property
    def weight_R(self) -> Tensor:
        """[R] the mean weight of each response's target tokens."""
        return self.sum_R(self.weight_M) / self.length_R.clamp(min=1)

    @property
    def weight_P(self) -> Tensor:
        """[P] the weight of the group that each pair belongs to."""
        return self.weight_G[self.group_R[self.better_P]]

    def with_streams(self, streams: Mapping[str, Tensor]) -> Forest:
        """The forest with further streams. A name ends in the letter of its axis, and the length must match."""
        sizes = {name[-1]: tensor.numel() for name, tensor in self._tensors().items()}
        for name, stream in streams.items():
            assert stream.shape == (sizes.get(name[-1]),), f"stream {name}: shape {tuple(stream.shape)}, axes {sizes}"
        return replace(self, streams={**self.streams, **streams})

    def to(self, device: torch.device) -> Forest:
        """The same forest with its tensors on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved, streams={name: stream.to(device) for name, stream in self.streams.items()})

    def split(self, tokens_per_microbatch: int) -> list[Forest]:
        """Micro-batches of at most `tokens_per_microbatch` tokens, in order; several trees may share one.

        A tree over the budget is split between its leaves, and its root repeated in each piece. A tree with pairs is not split, since a
        pair needs both responses; such a tree, or a single leaf over the budget, is a micro-batch of its own.
        """
        microbatches: list[list[_Piece]] = [[]]
        used = 0
        for piece in self._pieces(tokens_per_microbatch):
            if microbatches[-1] and used + piece.size > tokens_per_microbatch:
                microbatches.append([])
                used = 0
            microbatches[-1].append(piece)
            used += piece.size
        return [self] if len(microbatches) == 1 else [self._select(each) for each in microbatches]

    def each_tree(self) -> list[Forest]:
        """Every tree as a forest of its own."""
        return [self._select([piece]) for piece in self._pieces(self.tokens_N.numel())]

    def _pieces(self, budget: int) -> list[_Piece]:
        paired = set(self.group_R[self.better_P].tolist())
        first_leaves = accumulate((len(tree.leaves) for tree in self.trees), initial=0)
        pieces: list[_Piece] = []
        for group, (tree, first) in enumerate(zip(self.trees, first_leaves, strict=False)):
            if tree.size <= budget or group in paired:
                pieces.append(_Piece(group, tree, first, 0, len(tree.leaves)))
                continue
            begin, used = 0, tree.root
            for leaf, length in enumerate(tree.leaves):
                if leaf > begin and used + length > budget:
                    pieces.append(_Piece(group, tree, first, begin, leaf))
                    begin, used = leaf, tree.root
                used += length
            pieces.append(_Piece(group, tree, first, begin, len(tree.leaves)))
        return pieces

    def _select(self, pieces: Sequence[_Piece]) -> Forest:
        """The forest of these pieces alone. Indices are renumbered for the shorter axes."""
        N = torch.cat([piece.rows() for piece in pieces]).to(self.tokens_N.device)
        R = torch.cat([torch.arange(p.first + p.begin, p.first + p.end) for p in pieces]).to(N.device)
        G = torch.tensor([piece.group for piece in pieces], device=N.device)
        new = {"N": _inverse(N, self.tokens_N.numel()), "R": _inverse(R, self.num_responses), "G": _inverse(G, len(self.trees))}
        M = (new["R"][self.response_M] >= 0).nonzero().squeeze(1)
        P = (new["R"][self.better_P] >= 0).nonzero().squeeze(1)
        index = {"N": N, "M": M, "R": R, "G": G, "P": P}
        picked = {name: tensor[index[name[-1]]] for name, tensor in self._tensors().items()}
        starts = accumulate((piece.size for piece in pieces), initial=0)
        return replace(
            self,
            trees=tuple(Tree(start, p.tree.root, p.tree.leaves[p.begin : p.end]) for start, p in zip(starts, pieces, strict=False)),
            **{name: new[POINTS_ALONG[name]][rows] if name in POINTS_ALONG else rows for name, rows in picked.items()},
            streams={name: stream[index[name[-1]]] for name, stream in self.streams.items()},
        )

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name[-2:] in ("_N", "_M", "_R", "_G", "_P")}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Leaves `begin` to `end` of a tree, with its root. `first` is the tree's first response on R."""

    group: int
    tree: Tree
    first: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.tree.root + sum(self.tree.leaves[self.begin : self.end])

    def rows(self) -> Tensor:
        leaves = self.tree.start + self.tree.root + sum(self.tree.leaves[: self.begin])
        root = torch.arange(self.tree.start, self.tree.start + self.tree.root)
        return torch.cat([root, torch.arange(leaves, leaves + self.size - self.tree.root)])


def _inverse(index: Tensor, size: int) -> Tensor:
    """`inverse[index[i]] == i`, and -1 for what `index` does not contain; -1 stays -1 (the leaf of a root)."""
    inverse = torch.full((size + 1,), -1, dtype=torch.long, device=index.device)
    inverse[index] = torch.arange(index.numel(), device=index.device)
    return inverse


def count(groups: Sequence[Group]) -> Denominators:
    """The denominators of a step made of these groups, skipped ones included."""
    masks = [response.mask for group in groups for response in group.responses]
    pairs = sum(len(group.pairs) for group in groups)
    return Denominators(float(sum(map(sum, masks))), float(len(masks)), float(pairs), float(len(groups)))


def plant(groups: Sequence[Group], denominators: Denominators | None = None, temperature: float = 1.0) -> Forest:
    """Lay groups out as a forest.

    `denominators` are the step's where groups were skipped (default: those of these groups). The log-probs of the responses become the
    stream `sampled_logp_M` where all have them. Raises ValueError where a prompt or a response is empty, or no token is a target.
    """
    denominators = denominators or count(groups)
    if denominators.tokens == 0:
        raise ValueError("the whole step has no target token; at least one is needed; look at the masks with `ikusei check`")
    row = _ForestBuilder()
    trees = tuple(row.lay(g, group) for g, group in enumerate(groups))
    tensors = {name: torch.tensor(values, dtype=torch.long) for name, values in row.long.items()}
    sampled = {"sampled_logp_M": torch.tensor(row.logp, dtype=torch.float32)} if len(row.logp) == len(row.long["target_M"]) else {}
    return Forest(
        trees=trees,
        **tensors,
        temperature_R=torch.full((tensors["group_R"].numel(),), temperature),
        weight_G=torch.tensor([group.weight for group in groups], dtype=torch.float32),
        denominators=replace(denominators, laid_tokens=float(tensors["target_M"].numel())),
        streams=sampled,
    )


class _ForestBuilder:
    """The lists that become a forest's tensors, filled group by group."""

    def __init__(self) -> None:
        self.long: dict[str, list[int]] = {name: [] for name in ("tokens_N", "position_N", "position_M", "target_M", *POINTS_ALONG)}
        self.logp: list[float] = []

    def lay(self, g: int, group: Group) -> Tree:
        """The root, then each leaf; and the group's pairs."""
        long, root, start = self.long, group.prompt.tokens, len(self.long["tokens_N"])
        if not root or not all(response.tokens for response in group.responses):
            raise ValueError(f"group {group.prompt.id}: an empty prompt or response has no row to predict from; give each one token")
        first = len(long["group_R"])
        long["tokens_N"] += root
        long["position_N"] += range(len(root))
        long["leaf_N"] += [-1] * len(root)
        for r, response in enumerate(group.responses, first):
            self.lay_leaf(r, response, root_row=start + len(root) - 1, root_length=len(root))
            long["group_R"].append(g)
        for i, j in group.pairs:
            long["better_P"].append(first + i)
            long["worse_P"].append(first + j)
        return Tree(start, len(root), tuple(len(response.tokens) for response in group.responses))

    def lay_leaf(self, r: int, response: Response, root_row: int, root_length: int) -> None:
        """The root's last row predicts the first token, each row of the leaf the token after it."""
        long, begin, length = self.long, len(self.long["tokens_N"]), len(response.tokens)
        targets = [t for t, on in enumerate(response.mask) if on]
        long["tokens_N"] += response.tokens
        long["position_N"] += range(root_length, root_length + length)
        long["leaf_N"] += [r] * length
        long["predicts_M"] += [begin + t - 1 if t > 0 else root_row for t in targets]
        long["target_M"] += [response.tokens[t] for t in targets]
        long["response_M"] += [r] * len(targets)
        long["position_M"] += [root_length + t for t in targets]
        long["last_R"].append(begin + length - 1)
        if response.logprobs is not None:
            self.logp += [response.logprobs[t] for t in targets]
