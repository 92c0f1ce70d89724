"""What an algorithm asks for before its credit: streams on the whole forest, from forwards without gradient (`protocols.Algorithm.needs`).

A reference that stays where it is says the same of a row each time, so for rows of data it is asked once, before the first step, and what
it said is kept in the run's folder: after that it is not needed in memory, and a resumed run reads the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ikusei.forest import Forest, Outputs, Totals, plant
from ikusei.protocols import Algorithm, Asked, Policy, Reference, State, credited
from ikusei.run.tables import read_table, samples_table, write_table
from ikusei.types import Group

ROWS = 256  # groups that are laid out at one time

Said = dict[tuple[str, int], list[float]]  # log-probs by the prompt's id and the response's place
More = Callable[[Forest], dict[str, Tensor]]  # streams for a forest


def nothing(forest: Forest) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Before:
    """Who is asked, and for what. `stored` holds the reference's word on every row where it was asked beforehand."""

    needs: frozenset[str]
    policy: Policy
    reference: Reference | None
    tokens_per_microbatch: int
    stored: Said | None = None

    def forest(
        self, algorithm: Algorithm, groups: Sequence[Group], totals: Totals, state: State, temperature: float = 1.0, sampled: More = nothing
    ) -> Forest:
        """The forest of a step: its kept groups with the totals of all, the streams that the algorithm needs, those that `sampled` adds,
        and the algorithm's credit. Where no group is kept, an empty one."""
        forest = plant(groups, totals, temperature)
        if not groups:
            return forest
        forest = forest.with_streams({**self.streams(groups, forest), **sampled(forest)})
        return credited(algorithm, groups, forest, state)

    def streams(self, groups: Sequence[Group], forest: Forest) -> dict[str, Tensor]:
        """The streams of a forest that was planted from these groups, but for `old`, which the one who sampled knows."""
        found: dict[str, Tensor] = {}
        if "value" in self.needs:
            found["old_value_M"] = along_M(self.policy, forest, self.tokens_per_microbatch, lambda out: out.value_M)
        if "reference" in self.needs:
            found["ref_logp_M"] = self._refer(forest) if self.stored is None else recalled(self.stored, groups)
        if "mismatched" in self.needs:
            others = plant(mismatched(groups), forest.totals)
            found |= {"other_logp_M": along_M(self.policy, others, self.tokens_per_microbatch), "other_ref_logp_M": self._refer(others)}
        return found

    def _refer(self, forest: Forest) -> Tensor:
        assert self.reference is not None, "an algorithm that needs a reference gets one"
        return along_M(self.reference, forest, self.tokens_per_microbatch)


def along_M(
    asked: Asked, forest: Forest, tokens_per_microbatch: int, pick: Callable[[Outputs], Tensor | None] = lambda out: out.logp_M
) -> Tensor:
    """[M] log-probs, or what is picked, of a whole forest, part by part. Parts keep the order of M."""
    said = [pick(asked.forward(part)) for part in forest.split(tokens_per_microbatch)]
    return torch.cat([each.to(forest.target_M.device) for each in said if each is not None])


def mismatched(groups: Sequence[Group]) -> list[Group]:
    """Each group's responses after the prompt of the group before it; the first after the last's. Raises ValueError for one group alone."""
    if len(groups) < 2:
        raise ValueError("one group in the step: KTO compares each answer with another row's prompt; give examples_per_step: 2 or more")
    return [replace(group, prompt=before.prompt) for before, group in zip([groups[-1], *groups[:-1]], groups, strict=True)]


def recall(reference: Asked, groups: Iterable[Group], file: Path, tokens_per_microbatch: int) -> Said:
    """What the reference says of each scored token of the groups, asked once and kept in `file`."""
    if not file.exists():
        said: Said = {}
        rest = iter(groups)
        while batch := list(islice(rest, ROWS)):
            said |= _said(reference, batch, tokens_per_microbatch)
        rows = [{"prompt_id": name, "response": r, "logprobs": logprobs} for (name, r), logprobs in said.items()]
        write_table(file, samples_table(rows))
    return {(row["prompt_id"], row["response"]): row["logprobs"] for row in read_table(file)}


def recalled(stored: Said, groups: Sequence[Group]) -> Tensor:
    """[M] from the store."""
    rows = [stored[group.prompt.id, r] for group in groups for r in range(len(group.responses))]
    return torch.tensor([value for row in rows for value in row])


def _said(reference: Asked, groups: Sequence[Group], tokens_per_microbatch: int) -> Said:
    forest = plant(groups)
    rows = iter(along_M(reference, forest, tokens_per_microbatch).split([int(n) for n in forest.length_R.tolist()]))
    return {(group.prompt.id, r): next(rows).tolist() for group in groups for r in range(len(group.responses))}
