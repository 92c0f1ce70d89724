"""The sampler that shares the policy's weights: KV-cached, continuous batching, a prompt prefilled once for all of its responses.

A finished row gives its place to the next response at once; when none is waiting, the batch shrinks. Models whose layers cannot take the
forest's attention are decoded with transformers' own cache instead, a prompt at a time. What is scheduled depends on the data alone.
Left out: keys and values shared between the slots of one prompt (they are copied), and dropping keys that a window has passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ikusei.models.causal import CausalModel
from ikusei.samplers.drafts import Drafts, Job, jobs_of
from ikusei.samplers.lockstep import write_in_step
from ikusei.samplers.slots import Prefilled, Slots, prefill
from ikusei.text.chat import ends_of
from ikusei.types import Group, Prompt, Response, Sampling

PREFILL_TOKENS = 2048  # prompts go through the model in rows of about this many tokens
SHRINK = 0.75  # the batch is repacked when fewer than this share of its rows are still written


class LocalSampler:
    """Frozen at `version`: where `current` (the policy's version now) differs, it refuses to sample."""

    def __init__(
        self, causal: CausalModel, tokenizer: PreTrainedTokenizerBase, num_slots: int, version: int = 0, current: Callable[[], int] = int
    ) -> None:
        self.causal, self.tokenizer, self.num_slots = causal, tokenizer, num_slots
        self.version, self.current = version, current
        self.ends = end_tokens(causal.model, tokenizer)

    def sample(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> Iterator[Group]:
        """See `protocols.Sampler`. Raises RuntimeError once the policy has stepped, ValueError for a prompt that fills the context."""
        jobs = jobs_of(prompts, num_responses, sampling, seed, self.causal.context)
        write = _Slotted if self.causal.layout == "forest" else _Lockstep
        writer = write(self, prompts, jobs, sampling)
        done: list[dict[int, Response]] = [{} for _ in prompts]
        while True:
            self._check_version()
            finished = writer.advance()
            if not finished:
                return
            for job, response in finished:
                done[job.prompt][job.index] = response
                if len(done[job.prompt]) == num_responses:
                    yield Group(prompts[job.prompt], tuple(response for _, response in sorted(done[job.prompt].items())))

    def _check_version(self) -> None:
        if self.current() != self.version:
            raise RuntimeError(
                f"this snapshot is of version {self.version} and shares its weights with a policy that is now at version {self.current()}; "
                "take a new snapshot() after each step, or snapshot(copy=True) to keep an old one"
            )


class _Slotted:
    """Continuous batching over slots."""

    def __init__(self, sampler: LocalSampler, prompts: Sequence[Prompt], jobs: list[Job], sampling: Sampling) -> None:
        size = min(sampler.num_slots, len(jobs))
        self.sampler, self.prompts, self.waiting = sampler, prompts, deque(jobs)
        self.slots = Slots(sampler.causal, size)
        self.drafts = Drafts(size, sampling, sampler.ends, sampler.tokenizer, sampler.causal.device)
        self.prefilled: dict[int, Prefilled] = {}

    @torch.no_grad()
    def advance(self) -> list[tuple[Job, Response]]:
        """Write on until some responses are finished; none means that all are. One autocast covers it, so that weights are cast once."""
        with self.sampler.causal.autocast():
            while self.waiting or self.drafts.active:
                rows, logits = self._admit() or self._decode()
                ended = self.drafts.write(rows, logits)
                if ended:
                    self.slots.free(ended)
                    return [self.drafts.close(row, self.sampler.version) for row in ended]
        return []

    def _admit(self) -> tuple[list[int], Tensor] | None:
        """Waiting responses into the free rows, with the logits after their prompts; None where there is no row or nobody waits."""
        free = [row for row, job in enumerate(self.drafts.jobs) if job is None]
        if not (free and self.waiting):
            return None
        rows = free[: len(self.waiting)]
        logits = []
        for row in rows:
            job = self.waiting.popleft()
            prompt = self._prefilled(job.prompt)
            self.slots.fill(row, prompt)
            self.drafts.open(row, job)
            logits.append(prompt.logits)
        return rows, torch.stack(logits)

    def _prefilled(self, number: int) -> Prefilled:
        """The prompt's keys and values; it and the prompts after it go through the model together. Earlier prompts are done with."""
        if number not in self.prefilled:
            end, used = number, 0
            while end < len(self.prompts) and (end == number or used + len(self.prompts[end].tokens) <= PREFILL_TOKENS):
                used += len(self.prompts[end].tokens)
                end += 1
            fresh = prefill(self.sampler.causal, self.prompts[number:end])
            self.prefilled = dict(zip(range(number, end), fresh, strict=True))
        return self.prefilled[number]

    def _decode(self) -> tuple[list[int], Tensor]:
        """One step of every row that is still being written."""
        active = self.drafts.active
        if len(active) < SHRINK * len(self.drafts.jobs):
            self.drafts.keep(active)
            self.slots.keep(active)
            active = list(range(len(active)))
        logits = self.slots.step(self.drafts.last_tokens())
        return active, logits if len(active) == logits.shape[0] else logits[active]


class _Lockstep:
    """A prompt at a time, for models that take no forest (lockstep.py)."""

    def __init__(self, sampler: LocalSampler, prompts: Sequence[Prompt], jobs: list[Job], sampling: Sampling) -> None:
        self.sampler, self.prompts, self.jobs, self.sampling = sampler, prompts, jobs, sampling

    def advance(self) -> list[tuple[Job, Response]]:
        """The responses of the next prompt, at most a batch of slots."""
        if not self.jobs:
            return []
        causal, number = self.sampler.causal, self.jobs[0].prompt
        batch = [job for job in self.jobs if job.prompt == number][: self.sampler.num_slots]
        self.jobs = self.jobs[len(batch) :]
        drafts = Drafts(len(batch), self.sampling, self.sampler.ends, self.sampler.tokenizer, causal.device)
        for row, job in enumerate(batch):
            drafts.open(row, job)
        return [drafts.close(row, self.sampler.version) for row in write_in_step(causal, self.prompts[number].tokens, drafts)]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that end a response: those of the model's generation configuration, and what supervised learning ends one with."""
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in ids if i is not None) | ends_of(tokenizer)
