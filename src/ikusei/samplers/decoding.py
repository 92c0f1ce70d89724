"""The state of a decoding batch: tokens, log-probs, random numbers and stop conditions of the responses being decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ikusei.samplers.draw import draw, response_seed, uniforms
from ikusei.types import Prompt, Response, Sampling, Stop


@dataclass(frozen=True, slots=True)
class Job:
    """One response to decode: number `index` of prompt number `prompt`, with `seed`, of at most `limit` tokens."""

    prompt: int
    index: int
    seed: int
    limit: int


def jobs_of(prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int, context: int) -> list[Job]:
    """All responses to decode, in the order of the prompts. A prompt that occurs again gets further samples, not the same ones. Raises
    ValueError for a prompt that fills the model's context."""
    jobs = []
    seen: Counter[str] = Counter()
    for p, prompt in enumerate(prompts):
        room = context - len(prompt.tokens)
        if room < 1:
            raise ValueError(
                f"prompt {prompt.text[:60]!r} has {len(prompt.tokens)} tokens; the model's context holds {context}, and one must be left "
                "for the answer; shorten the prompt or take a model with a longer context"
            )
        limit = min(sampling.max_tokens, room)
        first = seen[prompt.id] * num_responses
        jobs += [Job(p, i, response_seed(seed, prompt.id, first + i), limit) for i in range(num_responses)]
        seen[prompt.id] += 1
    return jobs


class DecodingBatch:
    """One response in each row, all decoded in lockstep. A finished row stays until `arrange`, and gets no further tokens."""

    def __init__(self, sampling: Sampling, ends: frozenset[int], tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        self.sampling, self.ends, self.tokenizer = sampling, ends, tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.stop_ids = frozenset(sampling.stop_ids) | {special[stop] for stop in sampling.stop if stop in special}  # not in the text
        self.stops = torch.tensor(sorted(ends | self.stop_ids), dtype=torch.long, device=device)
        self.jobs: list[Job | None] = []  # None: finished
        width = sampling.max_tokens + 1  # the last column takes the tokens drawn for finished rows
        self.token_BT = torch.zeros(0, width, dtype=torch.long, device=device)
        self.logp_BT = torch.zeros(0, width, device=device)
        self.uniform_BT = torch.zeros(0, width, device=device)
        self.count_B = torch.zeros(0, dtype=torch.long, device=device)
        self.limit_B = torch.zeros_like(self.count_B)
        self.alive_B = torch.zeros(0, dtype=torch.bool, device=device)

    @property
    def active(self) -> list[int]:
        return [row for row, job in enumerate(self.jobs) if job is not None]

    def arrange(self, rows: Sequence[int], jobs: Sequence[Job] = ()) -> None:
        """Keeps these rows, in this order, and appends a new row for each job."""
        index = torch.tensor(rows, dtype=torch.long, device=self.count_B.device)
        self.jobs = [self.jobs[row] for row in rows] + list(jobs)
        uniform = torch.zeros(len(jobs), self.uniform_BT.shape[1])
        for row, job in zip(uniform, jobs, strict=True):
            row[: job.limit] = uniforms(job.seed, job.limit)
        self.uniform_BT = torch.cat([self.uniform_BT[index], uniform.to(index.device)])
        self.token_BT, self.logp_BT = (F.pad(x[index], (0, 0, 0, len(jobs))) for x in (self.token_BT, self.logp_BT))
        self.count_B = F.pad(self.count_B[index], (0, len(jobs)))
        self.limit_B = torch.cat([self.limit_B[index], torch.tensor([job.limit for job in jobs], dtype=torch.long, device=index.device)])
        self.alive_B = F.pad(self.alive_B[index], (0, len(jobs)), value=True)

    def write(self, first: int, logits: Tensor) -> Tensor:
        """Samples one token for each row from `first` on: logits [B - first, V] -> tokens [B - first]."""
        count, alive = self.count_B[first:], self.alive_B[first:]
        at = count[:, None]
        token, logp = draw(logits, self.uniform_BT[first:].gather(1, at).squeeze(1), self.sampling)
        self.token_BT[first:].scatter_(1, at, token[:, None])
        self.logp_BT[first:].scatter_(1, at, logp[:, None])
        count += alive
        alive &= ~(torch.isin(token, self.stops) | (count >= self.limit_B[first:]))
        return token

    def ended(self) -> list[int]:
        """The rows that have ended since the last call."""
        alive = self.alive_B.tolist()
        for row in self.active if self.sampling.stop else ():
            alive[row] = alive[row] and not self._stop_string(row)
        return [row for row in self.active if not alive[row]]

    def written(self, row: int) -> list[int]:
        """The tokens of a row so far."""
        return self.token_BT[row, : int(self.count_B[row])].tolist()

    def close(self, row: int, version: int) -> tuple[Job, Response]:
        """The finished response of a row, which is free from then on."""
        job, tokens = self.jobs[row], self.written(row)
        assert job is not None, "an empty row cannot be closed"
        self.jobs[row] = None
        count = len(tokens)
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        logprobs = tuple(self.logp_BT[row, :count].tolist())
        return job, Response(tuple(tokens), (True,) * count, text, logprobs, self._why(row, tokens[-1]), version, job.seed)

    def _why(self, row: int, last: int) -> Stop:
        if last in self.ends:
            return "eos"
        if last in self.stop_ids or (self.sampling.stop and self._stop_string(row)):
            return "stop"
        return "length"

    def _stop_string(self, row: int) -> bool:
        """True where the last token completed a stop string. A token is at least one byte, so decoding the last few tokens rules most rows
        out; then the whole text decides, since the window may split a character."""
        reach = max(len(stop.encode()) for stop in self.sampling.stop) + 1
        written = self.written(row)
        return all(
            any(stop in str(self.tokenizer.decode(tokens, skip_special_tokens=True)) for stop in self.sampling.stop)
            for tokens in (written[-reach:], written)
        )
