"""The nouns: what every part of Ikusei hands to the next. Standard library only.

Every method learns from *a prompt and its responses*, so there is one record for all of them, `Group`: supervised text has one
response, a preference pair two, a ranking K, reinforcement learning a sampled G.

    Task ─► Example ─► Prompt ─► Sampler ─► Group ─► rewards ─► Group with scores ─► Algorithm

All of them are frozen: what changes is a new record, made with `dataclasses.replace`.
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
    """One turn of a conversation, as chat templates read it. With `loss: false` a turn of the assistant is read and not learned."""

    role: str
    content: str
    loss: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task before it is made of tokens.

    `prompt` is a plain question, a conversation, or None for raw text (pretraining). `responses` holds what is learned from: texts, or the
    rest of a conversation where the assistant speaks more than once; it is empty for reinforcement learning. `tiers`, `margin` and `weight`
    are those of the `Group` that it becomes, `labels` a judgement of each response alone. `columns` is every other column of the row:
    rewards receive them by name.
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
    """What is asked. `id` hashes the content and is the key in every table and report."""

    id: str
    tokens: tuple[int, ...]  # rendered by the chat template
    text: str  # what a person reads
    columns: Mapping[str, Any] = field(default_factory=dict)
    asked: str | tuple[Message, ...] | None = None  # before the chat template: what another model's tokenizer renders anew


@dataclass(frozen=True, slots=True)
class Part:
    """What one reward said of one response. A reward that failed has no number; it is never the number 0."""

    value: float | None
    status: Status
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """What a reward adds to the total: `weight` times `value`, which the gates have multiplied."""

    weight: float
    value: float


@dataclass(frozen=True, slots=True)
class Score:
    """`total` is what is learned from, None when a reward that counts towards it failed. `parts` keeps each reward's own word, and `terms`
    what each one that is added up adds."""

    total: float | None
    parts: Mapping[str, Part] = field(default_factory=dict)
    terms: Mapping[str, Term] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One continuation of a prompt; T tokens."""

    tokens: tuple[int, ...]  # [T]
    mask: tuple[bool, ...]  # [T] True where the token is scored: written by the policy, or marked for training in data
    text: str  # what a person and a reward read
    logprobs: tuple[float, ...] | None = None  # [T] log p under the distribution sampled from; None: not written by a policy
    stop: Stop | None = None
    version: int | None = None  # the policy version that wrote it
    seed: int | None = None
    score: Score | None = None  # None until scored
    label: float | None = None  # a person's judgement of this response alone (KTO)

    @property
    def total(self) -> float | None:
        """What is learned from; None where it was not scored or a reward failed."""
        return self.score.total if self.score else None


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its responses: what is sampled, scored, shown, stored, credited and trained on."""

    prompt: Prompt
    responses: tuple[Response, ...]
    tiers: tuple[int, ...] | None = None  # a ranking: 0 is best, equal numbers are ties; a pair is (0, 1)
    margin: float | None = None  # how much better, where it was asked
    weight: float = 1.0

    @property
    def totals(self) -> tuple[float, ...]:
        """The total reward of each response; every response must have one (see `without_failures`)."""
        totals = tuple(r.total for r in self.responses if r.total is not None)
        assert len(totals) == len(self.responses), "a response without a total: call without_failures() first"
        return totals

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) for every two responses of different tiers; none where nobody ranked them."""
        if self.tiers is None:
            return []
        assert len(self.tiers) == len(self.responses), "a tier for each response"
        order = range(len(self.tiers))
        return [(i, j) for i in order for j in order if self.tiers[i] < self.tiers[j]]

    def without_failures(self) -> Group:
        """The group without the responses whose reward failed: they have no share in the baseline and get no gradient."""
        return replace(self, responses=tuple(r for r in self.responses if r.total is not None))


@dataclass(frozen=True, slots=True)
class ScoredText:
    """One text under a model; T tokens. `ended` tells whether the last one is the token that ends it."""

    text: str
    tokens: tuple[str, ...]  # [T] as the tokenizer names them
    logprobs: tuple[float, ...]  # [T] nats
    ended: bool

    @property
    def logp(self) -> float:
        """Nats."""
        return math.fsum(self.logprobs)

    @property
    def probability(self) -> str:
        """exp(logp) in digits, also where it is too small for a float."""
        log10 = self.logp / math.log(10)
        return f"{math.exp(self.logp):.3g}" if log10 > -300 else f"{10 ** (log10 % 1):.3g}e{math.floor(log10)}"

    @property
    def per_token(self) -> float:
        """Nats a token, the one that ends it included."""
        return self.logp / len(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """What the text costs, over its UTF-8 bytes: comparable between tokenizers. Infinite for the empty text."""
        size = len(self.text.encode())
        return -self.logp / math.log(2) / size if size else math.inf

    @property
    def spelled(self) -> list[tuple[str, float]]:
        """Each token with its log p."""
        return list(zip(self.tokens, self.logprobs, strict=True))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to write: the distribution (temperature, then top-k, top-p, min-p) and when to stop.

    `stop` strings end a response at the token that completes one (which is kept); `stop_ids` do so beside the model's own end tokens.
    `top_k=0`, `top_p=1` and `min_p=0` leave the distribution whole.
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
        """True where tokens are cut from the distribution, so that its log-probs are not those of the policy."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def content_id(*parts: object) -> str:
    """A 16-digit hash of what the parts say: the same on every machine and in every process."""
    return hashlib.blake2b("\x1f".join(repr(part) for part in parts).encode(), digest_size=8).hexdigest()
