"""A model of ours in Inspect, found by the entry point in pyproject.toml:

    inspect eval task.py --model ikusei/runs/x --temperature 0          also ikusei/seedling, ikusei/<folder>, ikusei/<hub id>

Inspect asks for one answer at a time, of as many samples as there are connections (--max-connections). Those that wait together are written
together, so the sampler's batch stays full. A prompt that is asked again (--epochs) gets its next samples. What stands in <think> tags is
given as reasoning, so scorers read the answer. Temperature 0 takes the likeliest word.

Left out: tools, images, log-probs, penalties, response schemas; each is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio
from inspect_ai import model as inspect  # pyright: ignore[reportMissingImports]

from ikusei.text.answer import split_thought
from ikusei.types import Example, Message, Prompt, Response, Sampling

MAX_TOKENS = 2048  # of an answer where nothing is said, as elsewhere in Inspect
CONNECTIONS = 64
GATHER_S = 0.02  # so long the first of a batch waits for those that are asked with it
HONOURED = "temperature, top_p, top_k, max_tokens, stop_seqs, seed, num_choices"
REFUSED = frozenset({"logprobs", "prompt_logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "response_schema"})

Kind = tuple[Sampling, int, int]  # how to write, how many answers, the seed


@dataclass(eq=False)
class SampleRequest:
    """One call that waits; `answers` once it is written."""

    prompt: Prompt
    kind: Kind
    answers: tuple[Response, ...] | None = None


@inspect.modelapi(name="ikusei")
class IkuseiAPI(inspect.ModelAPI):
    """`num_slots` (-M num_slots=128) answers are written at one time."""

    def __init__(
        self, model_name: str, base_url: Any = None, api_key: Any = None, config: Any = None, num_slots: int = CONNECTIONS
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or inspect.GenerateConfig())
        from ikusei.run.find import find_model  # torch: only when a model is wanted, for Inspect loads every entry point
        from ikusei.samplers.load import load_sampler  # torch: only when a model is wanted, for Inspect loads every entry point

        self.sampler = load_sampler(find_model(model_name), num_slots)
        self.lock, self.waiting, self.times = anyio.Lock(), list[SampleRequest](), Counter[str]()

    async def generate(
        self, input: list[inspect.ChatMessage], tools: Sequence[Any], tool_choice: Any, config: inspect.GenerateConfig
    ) -> inspect.ModelOutput:
        """Raises ValueError for what is not honoured and for a prompt that does not fit."""
        request = SampleRequest(self._prompt(input, tools), kind_of(config))
        self.waiting.append(request)
        async with self.lock:  # who has it writes for all that wait
            if request.answers is None:
                await anyio.sleep(GATHER_S)
                batch, self.waiting = list(dict.fromkeys([request, *self.waiting])), []
                await anyio.to_thread.run_sync(self._write, batch)
        assert request.answers is not None, "written above, or by another"
        choices = [self._choice(response, request.kind[0].stop) for response in request.answers]
        read, written = len(request.prompt.tokens), sum(len(response.tokens) for response in request.answers)
        usage = inspect.ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return inspect.ModelOutput(model=self.model_name, choices=choices, usage=usage)

    def _choice(self, response: Response, stop: Sequence[str]) -> inspect.ChatCompletionChoice:
        message = inspect.ChatMessageAssistant(content=content_of(response, stop), model=self.model_name, source="generate")
        return inspect.ChatCompletionChoice(message=message, stop_reason="max_tokens" if response.stop == "length" else "stop")

    def max_tokens(self) -> int:
        return min(MAX_TOKENS, self.sampler.context)

    def max_connections(self) -> int:
        return CONNECTIONS

    def _prompt(self, messages: Sequence[inspect.ChatMessage], tools: Sequence[Any]) -> Prompt:
        from ikusei.text.chat import render

        if tools:
            raise ValueError(f"{self.model_name}: {len(tools)} tools; this provider calls none; take a solver without tools")
        kinds = {part.type for message in messages if not isinstance(message.content, str) for part in message.content}
        if kinds - {"text", "reasoning"}:
            raise ValueError(f"{self.model_name}: a message holds {', '.join(sorted(kinds))}; allowed: text; take a task without the rest")
        turns = tuple(Message(role=message.role, content=message.text) for message in messages)
        plain = not self.sampler.tokenizer.chat_template and len(turns) == 1
        prompt = render(self.sampler.tokenizer, Example(turns[0]["content"] if plain else turns))
        self.times[prompt.id] += 1
        return replace(prompt, id=f"{prompt.id}/{self.times[prompt.id]}")

    def _write(self, batch: Sequence[SampleRequest]) -> None:
        kinds: dict[Kind, dict[str, SampleRequest]] = defaultdict(dict)
        for request in batch:
            kinds[request.kind][request.prompt.id] = request
        for (sampling, num, seed), of in kinds.items():
            for group in self.sampler.sample([request.prompt for request in of.values()], num, sampling, seed):
                of[group.prompt.id].answers = group.responses


def kind_of(config: inspect.GenerateConfig) -> Kind:
    """Raises ValueError for what is not honoured."""
    if given := sorted(REFUSED & config.model_dump(exclude_none=True).keys()):
        raise ValueError(f"{', '.join(given)}: not honoured here; allowed: {HONOURED}")
    drawn = {"temperature": config.temperature or 1.0, "top_p": config.top_p or 1.0, "top_k": config.top_k or 0}
    how: dict[str, Any] = {"top_k": 1} if config.temperature == 0 else drawn
    sampling = Sampling(max_tokens=config.max_tokens or MAX_TOKENS, stop=tuple(config.stop_seqs or ()), **how)
    return sampling, config.num_choices or 1, config.seed or 0


def content_of(response: Response, stop: Sequence[str]) -> Any:
    """The answer up to the first stop string; a thought before it as reasoning."""
    text = response.text[: min([at for each in stop if (at := response.text.find(each)) >= 0], default=len(response.text))]
    thought, answer = split_thought(text)
    return text if thought is None else [inspect.ContentReasoning(reasoning=thought), inspect.ContentText(text=answer)]
