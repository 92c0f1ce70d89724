"""Samples responses piece by piece: continues a partial response, and inserts given text between pieces.

    Partial ─► Writer.write ─► longer partials ─► Writer.insert (text that is given) ─► Writer.write ─► ... ─► partial.response

A response belongs to the original prompt. Its continuation is sampled from a prompt that ends with the tokens so far, whose id hashes the
original id and these tokens: random numbers depend on the seed and the preceding tokens, not on scheduling. Inserted tokens have mask False
and log p 0, and do not count as sampled.

Left out: a KV cache that outlives a piece (each piece prefills the prefix again, which is not counted); a stop string of the sampling that
begins in one piece and ends in the next is detected at the end of the next.
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
    """`sampling.max_tokens` limits the whole response; it also has to fit the context."""

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
        """`num` continuations of each partial, until the response ends, or pauses at a string of `stop` or after `max_tokens[i]` tokens."""
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
        """Appends given text. Where the text and one more token do not fit, the response ends unchanged, with stop "length"."""
        from ikusei.text.conversation import encode_after

        so_far = partial.prompt.tokens + partial.response.tokens
        given = encode_after(self.tokenizer, text, self.text(so_far), so_far)
        if len(given) >= self.room(partial):
            return replace(partial, response=replace(partial.response, stop="length"))
        inserted = Response(given, (False,) * len(given), text, (0.0,) * len(given), version=partial.response.version)
        return replace(partial, response=self._joined(partial.response, inserted))

    def room(self, partial: Partial) -> int:
        """How many more tokens the response may have."""
        return min(self.sampling.max_tokens, self.context - len(partial.prompt.tokens)) - len(partial.response.tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens decoded, special tokens included."""
        from ikusei.text.conversation import decode

        return decode(self.tokenizer, tokens)

    def truncate(self, response: Response, size: int) -> Response:
        """The first `size` tokens as an unfinished response."""
        tokens, logprobs = response.tokens[:size], response.logprobs and response.logprobs[:size]
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return replace(response, tokens=tokens, mask=response.mask[:size], text=text, logprobs=logprobs, stop=None)

    def _joined(self, one: Response, other: Response) -> Response:
        if not one.tokens:
            return other
        whole = after(one, (), other)
        return replace(self.truncate(whole, len(whole.tokens)), stop=other.stop, seed=one.seed)

    def _continued(self, partial: Partial, piece: Response, room: int) -> Partial:
        """The partial with one more piece. A pause leaves the response unfinished, unless the sampling's own stop or limit ends it."""
        whole = self._joined(partial.response, piece)
        texts = (whole.text, self.text(whole.tokens)) if self.sampling.stop else ()
        own = piece.tokens[-1] in self.sampling.stop_ids or any(each in text for each in self.sampling.stop for text in texts)
        open_or_full: Stop | None = "stop" if own and piece.stop == "stop" else "length" if len(piece.tokens) >= room else None
        stop = piece.stop if piece.stop in ("eos", "aborted") else open_or_full
        return Partial(partial.prompt, replace(whole, stop=stop), len(piece.tokens))
