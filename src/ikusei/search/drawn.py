"""Independent answers, of which one is chosen: all at once, or in rounds until the vote is decided.   arXiv:2203.11171, 2305.11860

    Drawn            n answers; any chooser
    VoteInRounds     a few at a time, to at most n; a prompt whose vote is decided is asked no more (vote.py says when)

With an error of 0 the answer is that of the vote among all n. Which answers are drawn in a round depends on the seed and on its number.
Left out: rounds for other choosers, whose winner a later answer can always beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ikusei.samplers.continuation import Writer
from ikusei.samplers.draw import response_seed
from ikusei.samplers.partial import Draft
from ikusei.search.choosing import Canonical, Chooser, answered, choose
from ikusei.search.thinker import Found, Guide
from ikusei.search.vote import Vote, decided
from ikusei.types import Group, Prompt, Response


@dataclass(frozen=True)
class Drawn:
    """A chooser of rewards needs a guide, which scores the answers."""

    n: int = 16
    chooser: Chooser = field(default_factory=Vote)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"got n={self.n}; allowed: 1 answer or more")

    def think(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Found]:
        drafts = writer.write([Draft(prompt) for prompt in prompts], self.n)
        groups = [Group(prompt, tuple(draft.response for draft in row)) for prompt, row in zip(prompts, drafts, strict=True)]
        groups = guide(groups) if guide else groups
        spent = [sum(draft.written for draft in row) for row in drafts]
        return [Found(choose(self.chooser, group.responses), group.responses, tokens) for group, tokens in zip(groups, spent, strict=True)]


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

    def think(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Found]:
        drawn: list[list[Response]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        for number, begin in enumerate(range(0, self.n, self.round)):
            one = replace(writer, seed=round_seed(writer.seed, number))
            rows = one.write([Draft(prompts[p]) for p in going], min(self.round, self.n - begin))
            for p, row in zip(going, rows, strict=True):
                drawn[p] += [draft.response for draft in row]
            going = [p for p in going if not self._decided(drawn[p])]
            if not going:
                break
        vote = Vote(canonical=self.canonical)
        return [Found(choose(vote, row), tuple(row), sum(len(response.tokens) for response in row)) for row in drawn]

    def _decided(self, drawn: Sequence[Response]) -> bool:
        return decided([self.canonical(response.text) for response in drawn], self.n - len(drawn), self.error)


def round_seed(seed: int, number: int) -> int:
    """The first round's answers are those that are drawn without rounds."""
    return response_seed(seed, "round", number) if number else seed
