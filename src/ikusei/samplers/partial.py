"""A partial response, and the prompt by which a sampler continues it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ikusei.types import Prompt, Response, content_id

NOTHING = Response((), (), "", ())


@dataclass(frozen=True)
class Partial:
    """An unfinished response; it has ended once it has a `stop`. `written` counts the tokens sampled in its last piece."""

    prompt: Prompt
    response: Response = NOTHING
    written: int = 0


def after(one: Response, given: tuple[int, ...], other: Response) -> Response:
    """Concatenates two responses with inserted tokens between them; the text is the second's."""
    logprobs = None if one.logprobs is None or other.logprobs is None else one.logprobs + (0.0,) * len(given) + other.logprobs
    mask = one.mask + (False,) * len(given) + other.mask
    return replace(other, tokens=one.tokens + given + other.tokens, mask=mask, logprobs=logprobs)


def prompts_of(partials: Sequence[Partial]) -> Iterator[Prompt]:
    """The prompt by which each is continued. Equal ones get different ids, so that their continuations differ."""
    times: Counter[str] = Counter()
    for partial in partials:
        written = partial.response.tokens
        name = content_id(partial.prompt.id, written) if written else partial.prompt.id
        again, times[name] = times[name], times[name] + 1
        yield replace(partial.prompt, id=content_id(name, again) if again else name, tokens=partial.prompt.tokens + written)
