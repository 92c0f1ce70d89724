"""The sampler that shares the policy's weights: KV-cached, continuous batching, a prompt prefilled once for all of its responses.

Finished rows give their places to the next responses, a block of them at a time; when none is waiting, the batch shrinks. Models whose
layers cannot take the forest's attention are decoded with transformers' own cache instead, a prompt at a time. What is scheduled depends on
the data alone. Left out: dropping keys that a window has passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ikusei.forest import Forest, Outputs
from ikusei.models.causal import CausalModel
from ikusei.models.continuations import continuations
from ikusei.models.score import score
from ikusei.samplers.decoding import Drafts, Job, jobs_of
from ikusei.samplers.kv_cache import Prefilled, Slots
from ikusei.samplers.lockstep import Decoder
from ikusei.samplers.streaming import settled
from ikusei.text.chat import ends_of
from ikusei.types import Group, Prompt, Response, Sampling, ScoredText

PREFILL_TOKENS = 2048  # prompts go through the model in rows of about this many tokens
SHRINK = 0.75  # the batch is repacked when fewer than this share of its rows are still written
REFILL = 0.125  # waiting responses begin when this share of the slots is free: each time, keys and values are moved
LOOK_EVERY = 16  # steps between looks at a GPU for what has ended; a look waits for it


class LocalSampler:
    """Frozen at `version`: where `current` (the policy's version now) differs, it refuses to sample."""

    def __init__(
        self,
        causal: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        num_slots: int,
        version: int = 0,
        current: Callable[[], int] = int,
        threads: int | None = None,
    ) -> None:
        """`threads` of torch to write with; None: as many as there are set."""
        self.threads = threads
        self.causal, self.tokenizer, self.num_slots = causal, tokenizer, num_slots
        self.version, self.current = version, current
        self.ends = end_tokens(causal.model, tokenizer)

    @property
    def context(self) -> int:
        return self.causal.context

    def sample(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> Iterator[Group]:
        """See `protocols.Sampler`. Raises RuntimeError once the policy has stepped, ValueError for a prompt that fills the context."""
        batch = self._batch(prompts, num_responses, sampling, seed)
        done: list[dict[int, Response]] = [{} for _ in prompts]
        while batch.unfinished:
            self._prepare()
            finished = batch.step()
            while not finished:
                finished = batch.step()
            for job, response in finished:
                done[job.prompt][job.index] = response
                if len(done[job.prompt]) == num_responses:
                    yield Group(prompts[job.prompt], tuple(response for _, response in sorted(done[job.prompt].items())))

    @torch.no_grad()
    def forward(self, forest: Forest) -> Outputs:
        """See `protocols.Asked`."""
        return self.causal.outputs(forest.to(self.causal.device))

    def score(self, prompt: Prompt, texts: Sequence[str], ends: bool = True) -> list[ScoredText]:
        """See `protocols.Sampler`. Raises ValueError for a text that does not fit the context."""
        return score(self.causal, self.tokenizer, prompt, texts, ends)

    def score_tokens(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """See `protocols.Sampler`; a context that does not fit loses its beginning."""
        return continuations(self.causal, pairs)

    def stream(self, prompt: Prompt, sampling: Sampling, seed: int) -> Iterator[str | Response]:
        """The response of `sample([prompt], 1, sampling, seed)` while it is written: its text in pieces, then the response."""
        batch, text, response = self._batch([prompt], 1, sampling, seed), "", None
        while response is None:
            self._prepare()
            response = next((response for _, response in batch.step()), None)
            longer = response.text if response else settled(self.tokenizer, batch.drafts.written(0))
            assert longer.startswith(text), f"the tokenizer rewrote what had been settled, {text!r}, to {longer!r}"
            if longer != text:
                yield longer[len(text) :]
            text = longer
        yield response

    def _batch(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> _Slotted | _Lockstep:
        jobs = jobs_of(prompts, num_responses, sampling, seed, self.context)
        return (_Slotted if self.causal.layout == "forest" else _Lockstep)(self, prompts, jobs, sampling)

    def _prepare(self) -> None:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.current() != self.version:
            raise RuntimeError(
                f"this snapshot is of version {self.version} and shares its weights with a policy that is now at version {self.current()}; "
                "take a new snapshot() after each step, or snapshot(copy=True) to keep an old one"
            )


class _Slotted:
    """Continuous batching over slots. Rows of drafts and slots are the same, in the order of asking."""

    def __init__(self, sampler: LocalSampler, prompts: Sequence[Prompt], jobs: list[Job], sampling: Sampling) -> None:
        self.sampler, self.prompts, self.waiting = sampler, prompts, deque(jobs)
        self.slots = Slots(sampler.causal, min(sampler.num_slots, len(jobs)))
        self.drafts = Drafts(sampling, sampler.ends, sampler.tokenizer, sampler.causal.device)
        self.prefilled: dict[int, Prefilled] = {}
        self.last = torch.zeros(0, dtype=torch.long)  # [B] the token written last in each row
        self.steps = 0

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.drafts.active)

    @torch.inference_mode()
    def step(self) -> list[tuple[Job, Response]]:
        """One token into each row -> the responses that are found to be finished."""
        look_every = 1 if self.sampler.causal.device.type == "cpu" or self.drafts.sampling.stop else LOOK_EVERY
        if not self._arrange():
            self.last = self.drafts.write(0, self.slots.step(self.last))
        self.steps += 1
        ended = self.drafts.ended() if self.steps % look_every == 0 else []
        return [self.drafts.close(row, self.sampler.version) for row in ended]

    def _arrange(self) -> bool:
        """Closes up and lets waiting responses begin, where that is worth its cost; says whether some began."""
        active = self.drafts.active
        room = min(self.sampler.num_slots - len(active), len(self.waiting))
        admits = room >= max(1, REFILL * self.sampler.num_slots) or (room > 0 and (room == len(self.waiting) or not active))
        if not admits and len(active) >= SHRINK * len(self.drafts.jobs):
            return False
        jobs = [self.waiting.popleft() for _ in range(room if admits else 0)]
        prompts = [self._prefilled(job.prompt) for job in jobs]
        self.slots.arrange(active, prompts)
        self.drafts.arrange(active, jobs)
        if jobs:
            begun = self.drafts.write(len(active), torch.stack([prompt.logits for prompt in prompts]))
            self.last = torch.cat([self.last[active], begun])
        else:
            self.last = self.last[active]
        return bool(jobs)

    def _prefilled(self, number: int) -> Prefilled:
        """The prompt's keys and values; it and the prompts after it go through the model together. Earlier prompts are done with."""
        if number not in self.prefilled:
            end, used = number, 0
            while end < len(self.prompts) and (end == number or used + len(self.prompts[end].tokens) <= PREFILL_TOKENS):
                used += len(self.prompts[end].tokens)
                end += 1
            fresh = self.slots.prefill(self.prompts[number:end])
            self.prefilled = dict(zip(range(number, end), fresh, strict=True))
        return self.prefilled[number]


class _Lockstep:
    """A prompt at a time, and of its responses as many as there are slots, for models that take no forest (lockstep.py)."""

    def __init__(self, sampler: LocalSampler, prompts: Sequence[Prompt], jobs: list[Job], sampling: Sampling) -> None:
        self.sampler, self.prompts, self.waiting = sampler, prompts, jobs
        self.drafts = Drafts(sampling, sampler.ends, sampler.tokenizer, sampler.causal.device)

    def _begin(self) -> None:
        causal, number = self.sampler.causal, self.waiting[0].prompt
        jobs = [job for job in self.waiting if job.prompt == number][: self.sampler.num_slots]
        self.waiting = self.waiting[len(jobs) :]
        self.drafts.arrange((), jobs)
        self.decoder = Decoder(causal, torch.tensor([self.prompts[number].tokens] * len(jobs), device=causal.device))

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.drafts.active)

    def step(self) -> list[tuple[Job, Response]]:
        """One token into each row -> the responses that are finished."""
        if not self.drafts.active:
            self._begin()
        self.decoder.step(self.drafts)
        return [self.drafts.close(row, self.sampler.version) for row in self.drafts.ended()]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that end a response: those of the model's generation configuration, and what supervised learning ends one with."""
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in ids if i is not None) | ends_of(tokenizer)
