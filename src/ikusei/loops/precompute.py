"""The streams that an algorithm needs before its credit: log-probs and values of the whole step, from forward passes without gradient
(`protocols.Algorithm.needs`).

    value         old_value_M                        the critic's values before the update
    reference     ref_logp_M                         log-probs under the reference policy
    mismatched    other_logp_M, other_ref_logp_M     each response under another group's prompt (KTO's baseline)

A fixed reference gives the same log-probs for a row every time. On rows of data they are therefore computed once, before the first step,
and cached in the run's folder. The reference need not stay in memory, and a resumed run reads the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ikusei.forest import Denominators, Forest, Outputs, plant
from ikusei.protocols import Algorithm, ForwardPass, Policy, Reference, State, credited
from ikusei.run.tables import read_table, samples_table, write_table
from ikusei.types import Group

GROUPS_AT_ONCE = 256  # while the cache is filled

LogpCache = dict[tuple[str, int], list[float]]  # (prompt id, index of the response) -> log-prob of each target token
MakeStreams = Callable[[Forest], dict[str, Tensor]]


def no_streams(forest: Forest) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Precompute:
    """Computes the no-grad streams that an algorithm needs. `cached` holds precomputed reference log-probs; None: the reference is run
    in each step."""

    needs: frozenset[str]
    policy: Policy
    reference: Reference | None
    tokens_per_microbatch: int
    cached: LogpCache | None = None

    def forest(
        self,
        algorithm: Algorithm,
        groups: Sequence[Group],
        denominators: Denominators,
        state: State,
        temperature: float = 1.0,
        more_streams: MakeStreams = no_streams,
    ) -> Forest:
        """The forest of a step: the kept `groups` laid out under the denominators of all groups, with the streams that the algorithm
        needs, those of `more_streams`, and the algorithm's credit. Empty where no group is kept."""
        forest = plant(groups, denominators, temperature)
        if not groups:
            return forest
        forest = forest.with_streams({**self.streams(groups, forest), **more_streams(forest)})
        return credited(algorithm, groups, forest, state)

    def streams(self, groups: Sequence[Group], forest: Forest) -> dict[str, Tensor]:
        """The streams above, for a forest planted from these groups. `old_logp_M` is not among them: it comes from the sampler."""
        streams: dict[str, Tensor] = {}
        if "value" in self.needs:
            streams["old_value_M"] = along_M(self.policy, forest, self.tokens_per_microbatch, lambda out: out.value_M)
        if "reference" in self.needs:
            streams["ref_logp_M"] = self._ref_logp_M(forest) if self.cached is None else cached_logp_M(self.cached, groups)
        if "mismatched" in self.needs:
            others = plant(mismatched(groups), forest.denominators)
            streams["other_logp_M"] = along_M(self.policy, others, self.tokens_per_microbatch)
            streams["other_ref_logp_M"] = self._ref_logp_M(others)
        return streams

    def _ref_logp_M(self, forest: Forest) -> Tensor:
        assert self.reference is not None, "an algorithm that needs a reference gets one"
        return along_M(self.reference, forest, self.tokens_per_microbatch)


def along_M(
    model: ForwardPass, forest: Forest, tokens_per_microbatch: int, pick: Callable[[Outputs], Tensor | None] = lambda out: out.logp_M
) -> Tensor:
    """[M] one output of a forward pass over the whole forest, by default the log-probs. Computed in micro-batches, which keep the order
    of M."""
    outputs = [pick(model.forward(microbatch)) for microbatch in forest.split(tokens_per_microbatch)]
    return torch.cat([each.to(forest.target_M.device) for each in outputs if each is not None])


def mismatched(groups: Sequence[Group]) -> list[Group]:
    """Each group's responses under the prompt of the group before it; the first under the last's. Raises ValueError for one group alone."""
    if len(groups) < 2:
        raise ValueError("one group in the step: KTO compares each answer with another row's prompt; give examples_per_step: 2 or more")
    return [replace(group, prompt=other.prompt) for other, group in zip([groups[-1], *groups[:-1]], groups, strict=True)]


def precompute_reference(reference: ForwardPass, groups: Iterable[Group], file: Path, tokens_per_microbatch: int) -> LogpCache:
    """The reference's log-prob of each target token of the groups: read from `file` where it exists, else computed and written to it."""
    if not file.exists():
        computed: LogpCache = {}
        rest = iter(groups)
        while batch := list(islice(rest, GROUPS_AT_ONCE)):
            computed |= _logps(reference, batch, tokens_per_microbatch)
        rows = [{"prompt_id": name, "response": r, "logprobs": logprobs} for (name, r), logprobs in computed.items()]
        write_table(file, samples_table(rows))
    return {(row["prompt_id"], row["response"]): row["logprobs"] for row in read_table(file)}


def cached_logp_M(cached: LogpCache, groups: Sequence[Group]) -> Tensor:
    """[M] the log-probs of these groups, from the cache."""
    rows = [cached[group.prompt.id, r] for group in groups for r in range(len(group.responses))]
    return torch.tensor([logp for row in rows for logp in row])


def _logps(reference: ForwardPass, groups: Sequence[Group], tokens_per_microbatch: int) -> LogpCache:
    forest = plant(groups)
    rows = iter(along_M(reference, forest, tokens_per_microbatch).split([int(n) for n in forest.length_R.tolist()]))
    return {(group.prompt.id, r): next(rows).tolist() for group in groups for r in range(len(group.responses))}
