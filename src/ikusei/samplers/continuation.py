"""Responses written in pieces: a sampler that also continues a partial response, and inserts text that the model has not written.

    Partial ─► Writer.write ─► longer partials ─► Writer.insert (text that is given) ─► Writer.write ─► ... ─► partial.response

A response belongs to the prompt as it was asked. Its continuation is sampled after a prompt that ends with it, whose id hashes the prompt's
and the tokens so far: random numbers depend on the seed and on what stands before, not on slots or on who finishes first. Tokens that
are given have mask False and log p 0, and are not counted as written.

Left out: keys and values that outlive a piece (each reads again what stands before it, which nothing here counts); a stop string of the
sampling that begins in one piece and ends in the next is seen where the next one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ikusei.samplers.partial import Partial, after, prompts_of
from ikusei.types import Response, Sampling, Stop

if TYPE_CHECKING:  # torch and transformers: the test-time methods are listed in a help text without them
    from transformers import PreTrainedTokenizerBase

    from ikusei.protocols import Sampler


@dataclass(frozen=True)
class Writer:
    """`sampling.max_tokens` is the most of a whole response; with its prompt it also fits the sampler's context."""

    sampler: Sampler
    sampling: Sampling
    seed: int = 0

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.sampler.tokenizer

    @property
    def context(self) -> int:
        return self.sampler.context

    def write(
        self, partials: Sequence[Partial], num: int = 1, stop: tuple[str, ...] = (), max_tokens: Sequence[int] | None = None
    ) -> list[list[Partial]]:
        """`num` continuations of each partial, to the response's end, or until it pauses: at a string of `stop`, or after its number of
        `max_tokens`."""
        rooms = [self.room(partial) for partial in partials]
        limits = [max(1, min(pair)) for pair in zip(rooms, max_tokens or rooms, strict=True)]  # the sampler refuses a full context
        prompts, continued = list(prompts_of(partials)), dict[int, list[Partial]]()
        for limit in sorted(set(limits)):
            place = {prompts[i].id: i for i, each in enumerate(limits) if each == limit}
            sampling = replace(self.sampling, max_tokens=limit, stop=(*self.sampling.stop, *stop))
            for group in self.sampler.sample([prompts[i] for i in place.values()], num, sampling, self.seed):
                i = place[group.prompt.id]
                continued[i] = [self._continued(partials[i], piece, rooms[i]) for piece in group.responses]
        return [continued[i] for i in range(len(partials))]

    def insert(self, partial: Partial, text: str) -> Partial:
        """The partial with text that is given. It ends as it is where there is no room for the text and a token more."""
        from ikusei.text.conversation import encode_after

        so_far = partial.prompt.tokens + partial.response.tokens
        given = encode_after(self.tokenizer, text, self.text(so_far), so_far)
        if len(given) >= self.room(partial):
            return replace(partial, response=replace(partial.response, stop="length"))
        inserted = Response(given, (False,) * len(given), text, (0.0,) * len(given), version=partial.response.version)
        return replace(partial, response=self._joined(partial.response, inserted))

    def room(self, partial: Partial) -> int:
        """How many tokens the response may still grow by."""
        return min(self.sampling.max_tokens, self.context - len(partial.prompt.tokens)) - len(partial.response.tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """What the model reads, special tokens included."""
        from ikusei.text.conversation import decode

        return decode(self.tokenizer, tokens)

    def truncate(self, response: Response, size: int) -> Response:
        """Its first `size` tokens, not ended."""
        tokens, logprobs = response.tokens[:size], response.logprobs and response.logprobs[:size]
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return replace(response, tokens=tokens, mask=response.mask[:size], text=text, logprobs=logprobs, stop=None)

    def _joined(self, one: Response, other: Response) -> Response:
        if not one.tokens:
            return other
        whole = after(one, (), other)
        return replace(self.truncate(whole, len(whole.tokens)), stop=other.stop, seed=one.seed)

    def _continued(self, partial: Partial, piece: Response, room: int) -> Partial:
        """With one more piece. A piece that paused leaves the response open, unless a stop of the sampling or its own limit ends it."""
        whole = self._joined(partial.response, piece)
        texts = (whole.text, self.text(whole.tokens)) if self.sampling.stop else ()
        own = piece.tokens[-1] in self.sampling.stop_ids or any(each in text for each in self.sampling.stop for text in texts)
        open_or_full: Stop | None = "stop" if own and piece.stop == "stop" else "length" if len(piece.tokens) >= room else None
        stop = piece.stop if piece.stop in ("eos", "aborted") else open_or_full
        return Partial(partial.prompt, replace(whole, stop=stop), len(piece.tokens))
