"""Writing in pieces: a sampler that also goes on where a response has paused, and after words that it has not written itself.

    Draft ─► Writer.write ─► longer drafts ─► Writer.force (words that are given) ─► Writer.write ─► ... ─► draft.response

A response belongs to the prompt as it was asked. What goes on from it is asked as a prompt that ends with it, whose id hashes the prompt's
and the tokens so far: random numbers depend on the seed and on what stands before, not on slots or on who finishes first. Tokens that
are given have mask False and log p 0, and are not counted as written.

Left out: keys and values that outlive a piece (each reads again what stands before it, which nothing here counts); a stop string of the
sampling that begins in one piece and ends in the next is seen where the next one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from ikusei.protocols import Sampler
from ikusei.samplers.partial import Draft, after, asked
from ikusei.text.conversation import decode, encode_after
from ikusei.types import Response, Sampling, Stop


@dataclass(frozen=True)
class Writer:
    """`sampling.max_tokens` is the most of a whole response, `context` what the model holds with the prompt."""

    sampler: Sampler
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    seed: int = 0
    context: int = 1 << 30

    def write(
        self, drafts: Sequence[Draft], num: int = 1, stop: tuple[str, ...] = (), most: Sequence[int] | None = None
    ) -> list[list[Draft]]:
        """`num` ways to go on from each draft, to its end, or until it pauses: at a string of `stop`, or after `most` tokens."""
        rooms = [self.room(draft) for draft in drafts]
        limits = [max(1, min(pair)) for pair in zip(rooms, most or rooms, strict=True)]  # a full context is told by the sampler
        prompts, found = list(asked(drafts)), dict[int, list[Draft]]()
        for limit in sorted(set(limits)):
            place = {prompts[i].id: i for i, each in enumerate(limits) if each == limit}
            sampling = replace(self.sampling, max_tokens=limit, stop=(*self.sampling.stop, *stop))
            for group in self.sampler.sample([prompts[i] for i in place.values()], num, sampling, self.seed):
                i = place[group.prompt.id]
                found[i] = [self._longer(drafts[i], piece, rooms[i]) for piece in group.responses]
        return [found[i] for i in range(len(drafts))]

    def force(self, draft: Draft, text: str) -> Draft:
        """The draft with words that are given. It ends as it is where there is no room for them and a token more."""
        so_far = draft.prompt.tokens + draft.response.tokens
        given = encode_after(self.tokenizer, text, decode(self.tokenizer, so_far), so_far)
        if len(given) >= self.room(draft):
            return replace(draft, response=replace(draft.response, stop="length"))
        words = Response(given, (False,) * len(given), text, (0.0,) * len(given), version=draft.response.version)
        return replace(draft, response=self._joined(draft.response, words))

    def room(self, draft: Draft) -> int:
        return min(self.sampling.max_tokens, self.context - len(draft.prompt.tokens)) - len(draft.response.tokens)

    def cut(self, response: Response, size: int) -> Response:
        """Its first tokens, open."""
        tokens, logprobs = response.tokens[:size], response.logprobs and response.logprobs[:size]
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return replace(response, tokens=tokens, mask=response.mask[:size], text=text, logprobs=logprobs, stop=None)

    def _joined(self, one: Response, other: Response) -> Response:
        if not one.tokens:
            return other
        whole = after(one, (), other)
        return replace(self.cut(whole, len(whole.tokens)), stop=other.stop, seed=one.seed)

    def _longer(self, draft: Draft, piece: Response, room: int) -> Draft:
        whole = self._joined(draft.response, piece)
        texts = (whole.text, decode(self.tokenizer, whole.tokens)) if self.sampling.stop else ()
        own = piece.tokens[-1] in self.sampling.stop_ids or any(each in text for each in self.sampling.stop for text in texts)
        open_or_full: Stop | None = "stop" if own and piece.stop == "stop" else "length" if len(piece.tokens) >= room else None
        return Draft(draft.prompt, replace(whole, stop=piece.stop if piece.stop in ("eos", "aborted") else open_or_full), len(piece.tokens))
