"""The sampler that shares the policy's weights: KV cache, continuous batching, one prefill for all responses to a prompt.

Slots of finished responses are refilled a block at a time; when no response is waiting, the batch shrinks. Models whose layers cannot use
the forest's attention are decoded with transformers' own cache, one prompt at a time (lockstep.py). Scheduling depends on the data alone.
Left out: dropping keys that have left a sliding window.
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
from ikusei.samplers.decoding import DecodingBatch, Job, jobs_of
from ikusei.samplers.kv_cache import KVCache, Prefilled
from ikusei.samplers.lockstep import Decoder
from ikusei.samplers.streaming import settled
from ikusei.text.chat import ends_of
from ikusei.types import Group, Prompt, Response, Sampling, TextLogprobs

PREFILL_TOKENS = 2048  # prompts go through the model in rows of about this many tokens
SHRINK = 0.75  # the batch is compacted when fewer than this share of its rows are unfinished
REFILL = 0.125  # waiting responses start when this share of the slots is free, since each refill moves the cache
LOOK_EVERY = 16  # steps between checks for finished rows on a GPU; each check synchronises


class LocalSampler:
    """Samples with the weights of `version`. Raises RuntimeError where `current()`, the policy's version, is another."""

    def __init__(
        self,
        causal: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        num_slots: int,
        version: int = 0,
        current: Callable[[], int] = int,
        threads: int | None = None,
    ) -> None:
        """`threads`: of torch while sampling; None: unchanged."""
        self.threads = threads
        self.causal, self.tokenizer, self.num_slots = causal, tokenizer, num_slots
        self.version, self.current = version, current
        self.ends = end_tokens(causal.model, tokenizer)

    @property
    def context(self) -> int:
        return self.causal.context

    def sample(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> Iterator[Group]:
        """See `protocols.Sampler`. Raises RuntimeError once the policy has been updated, ValueError for a prompt that fills the context."""
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
        """See `protocols.ForwardPass`."""
        return self.causal.outputs(forest.to(self.causal.device))

    def score(self, prompt: Prompt, texts: Sequence[str], ends: bool = True) -> list[TextLogprobs]:
        """See `protocols.Sampler`. Raises ValueError for a text that does not fit the context."""
        return score(self.causal, self.tokenizer, prompt, texts, ends)

    def score_tokens(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """See `protocols.Sampler`; a context that is too long is truncated on the left."""
        return continuations(self.causal, pairs)

    def stream(self, prompt: Prompt, sampling: Sampling, seed: int) -> Iterator[str | Response]:
        """See `protocols.Sampler`."""
        batch, text, response = self._batch([prompt], 1, sampling, seed), "", None
        while response is None:
            self._prepare()
            response = next((response for _, response in batch.step()), None)
            longer = response.text if response else settled(self.tokenizer, batch.decoding.written(0))
            assert longer.startswith(text), f"the tokenizer rewrote what had been settled, {text!r}, to {longer!r}"
            if longer != text:
                yield longer[len(text) :]
            text = longer
        yield response

    def _batch(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> _ContinuousBatch | _Lockstep:
        jobs = jobs_of(prompts, num_responses, sampling, seed, self.context)
        return (_ContinuousBatch if self.causal.layout == "forest" else _Lockstep)(self, prompts, jobs, sampling)

    def _prepare(self) -> None:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.current() != self.version:
            raise RuntimeError(
                f"this snapshot is of version {self.version} and shares its weights with a policy that is now at version {self.current()}; "
                "take a new snapshot() after each step, or snapshot(copy=True) to keep an old one"
            )


class _ContinuousBatch:
    """Continuous batching. Row b of the decoding batch is slot b of the cache, in the order of the prompts."""

    def __init__(self, sampler: LocalSampler, prompts: Sequence[Prompt], jobs: list[Job], sampling: Sampling) -> None:
        self.sampler, self.prompts, self.waiting = sampler, prompts, deque(jobs)
        self.cache = KVCache(sampler.causal, min(sampler.num_slots, len(jobs)))
        self.decoding = DecodingBatch(sampling, sampler.ends, sampler.tokenizer, sampler.causal.device)
        self.prefilled: dict[int, Prefilled] = {}
        self.last = torch.zeros(0, dtype=torch.long)  # [B] the last token of each row
        self.steps = 0

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.decoding.active)

    @torch.inference_mode()
    def step(self) -> list[tuple[Job, Response]]:
        """Decodes one token in each row, and returns the responses found to be finished."""
        look_every = 1 if self.sampler.causal.device.type == "cpu" or self.decoding.sampling.stop else LOOK_EVERY
        if not self._arrange():
            self.last = self.decoding.write(0, self.cache.step(self.last))
        self.steps += 1
        ended = self.decoding.ended() if self.steps % look_every == 0 else []
        return [self.decoding.close(row, self.sampler.version) for row in ended]

    def _arrange(self) -> bool:
        """Compacts the batch and starts waiting responses, where that is worth its cost. True where some were started."""
        active = self.decoding.active
        room = min(self.sampler.num_slots - len(active), len(self.waiting))
        admits = room >= max(1, REFILL * self.sampler.num_slots) or (room > 0 and (room == len(self.waiting) or not active))
        if not admits and len(active) >= SHRINK * len(self.decoding.jobs):
            return False
        jobs = [self.waiting.popleft() for _ in range(room if admits else 0)]
        prompts = [self._prefilled(job.prompt) for job in jobs]
        self.cache.arrange(active, prompts)
        self.decoding.arrange(active, jobs)
        if jobs:
            begun = self.decoding.write(len(active), torch.stack([prompt.logits for prompt in prompts]))
            self.last = torch.cat([self.last[active], begun])
        else:
            self.last = self.last[active]
        return bool(jobs)

    def _prefilled(self, number: int) -> Prefilled:
        """The prefilled prompt; it and the prompts after it are prefilled together. Earlier ones are no longer needed."""
        if number not in self.prefilled:
            end, used = number, 0
            while end < len(self.prompts) and (end == number or used + len(self.prompts[end].tokens) <= PREFILL_TOKENS):
                used += len(self.prompts[end].tokens)
                end += 1
            fresh = self.cache.prefill(self.prompts[number:end])
            self.prefilled = dict(zip(range(number, end), fresh, strict=True))
        return self.prefilled[number]


class _Lockstep:
    """One prompt at a time, with as many of its responses as there are slots, for models in the padded layout (lockstep.py)."""

    def __init__(self, sampler: LocalSampler, prompts: Sequence[Prompt], jobs: list[Job], sampling: Sampling) -> None:
        self.sampler, self.prompts, self.waiting = sampler, prompts, jobs
        self.decoding = DecodingBatch(sampling, sampler.ends, sampler.tokenizer, sampler.causal.device)

    def _begin(self) -> None:
        causal, number = self.sampler.causal, self.waiting[0].prompt
        jobs = [job for job in self.waiting if job.prompt == number][: self.sampler.num_slots]
        self.waiting = self.waiting[len(jobs) :]
        self.decoding.arrange((), jobs)
        self.decoder = Decoder(causal, torch.tensor([self.prompts[number].tokens] * len(jobs), device=causal.device))

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.decoding.active)

    def step(self) -> list[tuple[Job, Response]]:
        """Decodes one token in each row, and returns the finished responses."""
        if not self.decoding.active:
            self._begin()
        self.decoder.step(self.decoding)
        return [self.decoding.close(row, self.sampler.version) for row in self.decoding.ended()]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that end a response: those of the generation configuration, and the end tokens of supervised training."""
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in ids if i is not None) | ends_of(tokenizer)
