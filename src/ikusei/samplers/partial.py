"""A partial response, and the prompt by which a sampler continues it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ikusei.types import Prompt, Response, content_id

NOTHING = Response((), (), "", ())


@dataclass(frozen=True)
class Partial:
    """A response that is being written; it has ended once it has a `stop`. `written` counts the tokens of its last piece."""

    prompt: Prompt
    response: Response = NOTHING
    written: int = 0


def after(one: Response, given: tuple[int, ...], other: Response) -> Response:
    """The second response with the way to it: the first, and tokens that are given. Its text stays its own."""
    logprobs = None if one.logprobs is None or other.logprobs is None else one.logprobs + (0.0,) * len(given) + other.logprobs
    mask = one.mask + (False,) * len(given) + other.mask
    return replace(other, tokens=one.tokens + given + other.tokens, mask=mask, logprobs=logprobs)


def prompts_of(partials: Sequence[Partial]) -> Iterator[Prompt]:
    """What the sampler is given for each; equal ones are told apart, or they would go on alike."""
    times: Counter[str] = Counter()
    for partial in partials:
        written = partial.response.tokens
        name = content_id(partial.prompt.id, written) if written else partial.prompt.id
        again, times[name] = times[name], times[name] + 1
        yield replace(partial.prompt, id=content_id(name, again) if again else name, tokens=partial.prompt.tokens + written)
