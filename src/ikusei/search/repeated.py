"""Repeated sampling: independent responses, of which one is chosen; at once, or in rounds until the vote is decided.   arXiv:2203.11171,
2305.11860

    RepeatedSampling     n responses; any chooser
    VoteInRounds         a few at a time, at most n, until the vote of the prompt is decided (vote.py)

With an error of 0 the result is that of a vote among all n. The samples of a round depend on the seed and its number. Left out: rounds for
other choosers, whose winner any later response can beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ikusei.eval_metrics.choosing import Canonical, Chooser, answered, choose
from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Partial
from ikusei.search.method import Guide, MethodSpec, Result
from ikusei.search.vote import Vote, decided
from ikusei.types import Group, Prompt, Response


@dataclass(frozen=True)
class RepeatedSampling:
    """A chooser that reads rewards needs a guide."""

    n: int = 16
    chooser: Chooser = field(default_factory=Vote)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"got n={self.n}; allowed: 1 answer or more")

    def run(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Result]:
        partials = writer.write([Partial(prompt) for prompt in prompts], self.n)
        groups = [Group(prompt, tuple(partial.response for partial in row)) for prompt, row in zip(prompts, partials, strict=True)]
        groups = guide(groups) if guide else groups
        spent = [sum(partial.written for partial in row) for row in partials]
        return [Result(choose(self.chooser, group.responses), group.responses, tokens) for group, tokens in zip(groups, spent, strict=True)]


@dataclass(frozen=True)
class VoteInRounds:
    """At most `n` answers, `round` of them at a time, the vote being wrong about the commonest with a chance of at most `error`."""

    n: int = 64
    round: int = 4
    error: float = 0.05
    canonical: Canonical = answered

    def __post_init__(self) -> None:
        if min(self.n, self.round) < 1 or not 0 <= self.error < 1:
            raise ValueError(f"got n={self.n}, round={self.round}, error={self.error}; allowed: 1 or more, 1 or more, 0 to below 1")

    def run(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Result]:
        answers: list[list[Response]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        for number, begin in enumerate(range(0, self.n, self.round)):
            one = replace(writer, seed=round_seed(writer.seed, number))
            rows = one.write([Partial(prompts[p]) for p in going], min(self.round, self.n - begin))
            for p, row in zip(going, rows, strict=True):
                answers[p] += [partial.response for partial in row]
            going = [p for p in going if not self._decided(answers[p])]
            if not going:
                break
        vote = Vote(canonical=self.canonical)
        return [Result(choose(vote, row), tuple(row), sum(len(response.tokens) for response in row)) for row in answers]

    def _decided(self, answers: Sequence[Response]) -> bool:
        return decided([self.canonical(response.text) for response in answers], self.n - len(answers), self.error)


def round_seed(seed: int, number: int) -> int:
    """The first round has the samples of a run without rounds."""
    from ikusei.samplers.draw import response_seed  # torch

    return response_seed(seed, "round", number) if number else seed


METHODS = (
    MethodSpec("rounds", "at most N answers, four at a time, until the vote is decided", make=lambda n, _: VoteInRounds(n), least=8),
)
