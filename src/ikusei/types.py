"""The data types that all packages share. Standard library only.

Every method learns from *a prompt and its responses*, so there is one record for all of them, `Group`: supervised text has one
response, a preference pair two, a ranking K, reinforcement learning a sampled G.

    Task ─► Example ─► Prompt ─► Sampler ─► Group ─► rewards ─► Group with scores ─► Algorithm

All are frozen; a changed record is made with `dataclasses.replace`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NotRequired, TypedDict

Stop = Literal["eos", "stop", "length", "aborted"]
Status = Literal["ok", "not_applicable", "error", "timeout", "crashed", "not_finite"]
Split = Literal["train", "test"]


class Message(TypedDict):
    """One turn of a conversation, as chat templates read it. `loss: false` masks an assistant turn: it is context, not a target."""

    role: str
    content: str
    loss: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task, not yet tokenized.

    `prompt` is a plain question, a conversation, or None for raw text (pretraining). `responses` are the training targets: texts, or the
    rest of a conversation with several assistant turns; empty for reinforcement learning. `tiers`, `margin` and `weight` become those of
    the `Group`; `labels` rate each response by itself. `columns` are all other columns of the row; rewards receive them by name.
    """

    prompt: str | tuple[Message, ...] | None
    responses: tuple[str | tuple[Message, ...], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    tiers: tuple[int, ...] | None = None
    margin: float | None = None
    weight: float = 1.0
    labels: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt. `id` is a hash of the content, and the key in every table and report."""

    id: str
    tokens: tuple[int, ...]  # as rendered by the chat template
    text: str  # what a person reads
    columns: Mapping[str, Any] = field(default_factory=dict)
    asked: str | tuple[Message, ...] | None = None  # before the chat template, to be rendered by another model's tokenizer


@dataclass(frozen=True, slots=True)
class RewardResult:
    """The result of one reward for one response. A failed reward has value None, never 0."""

    value: float | None
    status: Status
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """What a reward contributes to the total: `weight * value`, with `value` already multiplied by the gates."""

    weight: float
    value: float


@dataclass(frozen=True, slots=True)
class Score:
    """The rewards of one response. `total` is the training reward, None where a reward that counts towards it failed. `parts` are the
    results of all rewards by name, `terms` the summands of the total."""

    total: float | None
    parts: Mapping[str, RewardResult] = field(default_factory=dict)
    terms: Mapping[str, Term] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a prompt; T tokens."""

    tokens: tuple[int, ...]  # [T]
    mask: tuple[bool, ...]  # [T] True for target tokens, which the loss counts: sampled by the policy, or marked for training in data
    text: str  # what a person and a reward read
    logprobs: tuple[float, ...] | None = None  # [T] log p under the sampling distribution, in nats; None: not sampled by a policy
    stop: Stop | None = None
    version: int | None = None  # of the policy that sampled it
    seed: int | None = None
    score: Score | None = None  # None before the rewards are computed
    label: float | None = None  # a rating of this response by itself (KTO): above 0 is desirable

    @property
    def total(self) -> float | None:
        """The training reward; None where it was not computed or a reward failed."""
        return self.score.total if self.score else None


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its responses: the unit of sampling, scoring, credit and training."""

    prompt: Prompt
    responses: tuple[Response, ...]
    tiers: tuple[int, ...] | None = None  # a ranking: 0 is best, equal numbers are ties; a pair is (0, 1)
    margin: float | None = None  # how much better the chosen response is, where the data has it
    weight: float = 1.0

    @property
    def totals(self) -> tuple[float, ...]:
        """The training reward of each response; every response must have one (see `without_failures`)."""
        totals = tuple(r.total for r in self.responses if r.total is not None)
        assert len(totals) == len(self.responses), "a response without a total: call without_failures() first"
        return totals

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) indices of every two responses of different tiers; [] where there is no ranking."""
        if self.tiers is None:
            return []
        assert len(self.tiers) == len(self.responses), "a tier for each response"
        order = range(len(self.tiers))
        return [(i, j) for i in order for j in order if self.tiers[i] < self.tiers[j]]

    def without_failures(self) -> Group:
        """The group without the responses whose reward failed: they count in no baseline and get no gradient."""
        return replace(self, responses=tuple(r for r in self.responses if r.total is not None))


@dataclass(frozen=True, slots=True)
class TextLogprobs:
    """The log-probs of one text under a model; T tokens. `ended`: the last one is the end token."""

    text: str
    tokens: tuple[str, ...]  # [T] as the tokenizer names them
    logprobs: tuple[float, ...]  # [T] nats
    ended: bool

    @property
    def logp(self) -> float:
        """log p of the whole text, in nats."""
        return math.fsum(self.logprobs)

    @property
    def probability(self) -> str:
        """exp(logp) as a decimal string, also below the range of a float."""
        log10 = self.logp / math.log(10)
        return f"{math.exp(self.logp):.3g}" if log10 > -300 else f"{10 ** (log10 % 1):.3g}e{math.floor(log10)}"

    @property
    def per_token(self) -> float:
        """Mean log p per token, end token included, in nats."""
        return self.logp / len(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """-log2 p / UTF-8 bytes: comparable between tokenizers. Infinite for the empty text."""
        size = len(self.text.encode())
        return -self.logp / math.log(2) / size if size else math.inf

    @property
    def spelled(self) -> list[tuple[str, float]]:
        """Each token with its log p."""
        return list(zip(self.tokens, self.logprobs, strict=True))


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters: the distribution (temperature, then top-k, top-p, min-p) and the stop conditions.

    A response ends at the token that completes a `stop` string (the token is kept), at a token of `stop_ids`, or at the model's end tokens.
    `top_k=0`, `top_p=1` and `min_p=0` do not truncate.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = f"sampling: got temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}, min_p={self.min_p}, "
        given += f"max_tokens={self.max_tokens}"
        if "" in self.stop:
            raise ValueError("sampling.stop: got '', which would end every answer at once; allowed: strings of one letter or more")
        allowed = self.temperature > 0 and self.top_k >= 0 and 0 < self.top_p <= 1 and 0 <= self.min_p < 1 and self.max_tokens >= 1
        if not allowed or not math.isfinite(self.temperature):
            raise ValueError(
                f"{given}; allowed: temperature > 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p < 1, max_tokens >= 1. "
                "For the single most likely answer use top_k=1 instead of temperature=0"
            )

    @property
    def truncated(self) -> bool:
        """True where the distribution is truncated, so that its log-probs are not the policy's."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def content_id(*parts: object) -> str:
    """A 16-digit hash of the parts, stable across machines and processes."""
    return hashlib.blake2b("\x1f".join(repr(part) for part in parts).encode(), digest_size=8).hexdigest()
