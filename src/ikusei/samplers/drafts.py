"""The responses being written: their tokens, log-probs and random numbers so far, and when each one ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ikusei.samplers.draw import draw, response_seed, uniforms
from ikusei.types import Prompt, Response, Sampling, Stop


@dataclass(frozen=True, slots=True)
class Job:
    """Response `index` of prompt number `prompt`, to be written with `seed` in at most `limit` tokens."""

    prompt: int
    index: int
    seed: int
    limit: int


def jobs_of(prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int, context: int) -> list[Job]:
    """Every response to write, in the order of asking; a prompt that is asked again gets its next samples, not the same ones. Raises
    ValueError for a prompt that fills the model's context."""
    jobs = []
    asked: Counter[str] = Counter()
    for p, prompt in enumerate(prompts):
        room = context - len(prompt.tokens)
        if room < 1:
            raise ValueError(
                f"prompt {prompt.text[:60]!r} has {len(prompt.tokens)} tokens; the model's context holds {context}, and one must be left "
                "for the answer; shorten the prompt or take a model with a longer context"
            )
        limit = min(sampling.max_tokens, room)
        first = asked[prompt.id] * num_responses
        jobs += [Job(p, i, response_seed(seed, prompt.id, first + i), limit) for i in range(num_responses)]
        asked[prompt.id] += 1
    return jobs


class Drafts:
    """One draft in each row of a batch of `size`."""

    def __init__(
        self, size: int, sampling: Sampling, ends: frozenset[int], tokenizer: PreTrainedTokenizerBase, device: torch.device
    ) -> None:
        self.sampling, self.ends, self.tokenizer = sampling, ends, tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.stop_ids = frozenset(sampling.stop_ids) | {special[stop] for stop in sampling.stop if stop in special}  # they are in no text
        self.stops = torch.tensor(sorted(ends | self.stop_ids), dtype=torch.long, device=device)
        self.jobs: list[Job | None] = [None] * size
        self.token_BT = torch.zeros(size, sampling.max_tokens, dtype=torch.long, device=device)
        self.logp_BT = torch.zeros(size, sampling.max_tokens, device=device)
        self.uniform_BT = torch.zeros(size, sampling.max_tokens, device=device)
        self.count_B = torch.zeros(size, dtype=torch.long, device=device)
        self.limit_B = torch.zeros(size, dtype=torch.long, device=device)

    @property
    def active(self) -> list[int]:
        return [row for row, job in enumerate(self.jobs) if job is not None]

    def open(self, row: int, job: Job) -> None:
        """Begin a response in a free row."""
        self.jobs[row] = job
        self.uniform_BT[row, : job.limit] = uniforms(job.seed, job.limit).to(self.uniform_BT.device)
        self.count_B[row], self.limit_B[row] = 0, job.limit

    def write(self, rows: list[int], logits: Tensor) -> list[int]:
        """One token into each of `rows` from logits [len(rows), V]; says which of them ended."""
        at = torch.tensor(rows, device=logits.device)
        count = self.count_B[at]
        token, logp = draw(logits, self.uniform_BT[at, count], self.sampling)
        self.token_BT[at, count], self.logp_BT[at, count] = token, logp
        self.count_B[at] = count + 1
        ended = (torch.isin(token, self.stops) | (count + 1 >= self.limit_B[at])).tolist()
        return [row for row, end in zip(rows, ended, strict=True) if end or (self.sampling.stop and self._stop_string(row))]

    def last_tokens(self) -> Tensor:
        """[B] the token written last in each row."""
        return self.token_BT.gather(1, (self.count_B - 1).clamp(min=0)[:, None]).squeeze(1)

    def close(self, row: int, version: int) -> tuple[Job, Response]:
        """The finished response; its row is free again."""
        job, count = self.jobs[row], int(self.count_B[row])
        assert job is not None, "an empty row cannot be closed"
        self.jobs[row] = None
        tokens = self.token_BT[row, :count].tolist()
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        logprobs = tuple(self.logp_BT[row, :count].tolist())
        return job, Response(tuple(tokens), (True,) * count, text, logprobs, self._why(row, tokens[-1]), version, job.seed)

    def keep(self, rows: list[int]) -> None:
        """Only these rows go on, in this order."""
        index = torch.tensor(rows, device=self.count_B.device)
        self.jobs = [self.jobs[row] for row in rows]
        self.token_BT, self.logp_BT, self.uniform_BT = self.token_BT[index], self.logp_BT[index], self.uniform_BT[index]
        self.count_B, self.limit_B = self.count_B[index], self.limit_B[index]

    def _why(self, row: int, last: int) -> Stop:
        if last in self.ends:
            return "eos"
        if last in self.stop_ids or (self.sampling.stop and self._stop_string(row)):
            return "stop"
        return "length"

    def _stop_string(self, row: int) -> bool:
        """True where the last token completed a stop string. A token is at least one byte, so the last few tokens tell whether to look at
        the whole; the whole decides, because a window may cut a character in two."""
        reach = max(len(stop.encode()) for stop in self.sampling.stop) + 1
        written = self.token_BT[row, : int(self.count_B[row])].tolist()
        return all(
            any(stop in str(self.tokenizer.decode(tokens, skip_special_tokens=True)) for stop in self.sampling.stop)
            for tokens in (written[-reach:], written)
        )
