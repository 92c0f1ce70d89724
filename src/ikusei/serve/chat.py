"""Talk with a model: a few answers to one prompt, or a conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from ikusei.samplers.continuation import Writer
from ikusei.samplers.load import load_sampler
from ikusei.samplers.local import LocalSampler
from ikusei.search.answer import guide_of
from ikusei.search.choosing import answered
from ikusei.search.methods import read_way
from ikusei.search.thinker import Found, Guide
from ikusei.text.answer import split_thought
from ikusei.text.chat import render
from ikusei.types import Example, Message, Prompt, Response, Sampling

Reply = Callable[[LocalSampler, Prompt, Sampling, int], tuple[Response, str]]  # by a seed; and a word on how it was found


def answers(model: str, prompt: str, num: int, sampling: Sampling, seed: int) -> tuple[Response, ...]:
    """`num` answers to one prompt."""
    sampler = load_sampler(model)
    (group,) = sampler.sample([render(sampler.tokenizer, Example(prompt))], num, sampling, seed)
    return group.responses


def _rendered(sampler: LocalSampler, said: list[Message], line: str) -> Prompt:
    return render(sampler.tokenizer, Example(tuple(said) if sampler.tokenizer.chat_template else line))


def at_once(sampler: LocalSampler, prompt: Prompt, sampling: Sampling, seed: int) -> tuple[Response, str]:
    """The first answer that comes."""
    (group,) = sampler.sample([prompt], 1, sampling, seed)
    return group.responses[0], ""


def converse(model: str, sampling: Sampling, turns: bool, console: Console, reply: Reply = at_once) -> None:
    """Questions and answers until an empty line, Ctrl-D or Ctrl-C. Each line is asked alone, as prompts are in training, or, with `turns`,
    after all that was said before. A thought is shown dim, and so is how the answer was found."""
    sampler = load_sampler(model)
    how = "it remembers the conversation, /new begins anew" if turns else "each line is asked alone, --turns remembers"
    console.print(f"[bold]{model}[/] · {how} · an empty line ends", highlight=False)
    said: list[Message] = []
    asked = 0  # the seed: the same question again may be answered otherwise
    while True:
        try:
            line = console.input("[bold cyan]you[/]  ").strip()
        except EOFError:
            line = ""
        if not line:
            return
        if line == "/new" or not turns:
            said = []
        if line == "/new":
            continue
        said.append(Message(role="user", content=line))
        asked += 1
        prompt = _rendered(sampler, said, line)
        while len(said) > 1 and len(prompt.tokens) + sampling.max_tokens > sampler.causal.context:
            said = said[2:]  # the oldest question and its answer are forgotten
            prompt = _rendered(sampler, said, line)
        response, found = reply(sampler, prompt, sampling, asked)
        said.append(Message(role="assistant", content=response.text))
        thought, answer = split_thought(response.text)
        console.print("[bold green]model[/] ", end="")
        if thought:
            console.print(f"({thought}) ", style="dim", end="", markup=False, highlight=False)
        console.print(answer or "…", end="" if found else "\n", markup=False, highlight=False)
        if found:
            console.print(f"  {found}", style="dim", markup=False, highlight=False)


def replier(words: str) -> Reply:
    """A way to answer in a conversation, which says beside an answer how it was found. `words` as in `read_way`."""
    (thinker, reward), guides = read_way(words), dict[int, Guide | None]()

    def reply(sampler: LocalSampler, prompt: Prompt, sampling: Sampling, seed: int) -> tuple[Response, str]:
        writer = Writer(sampler, sampler.tokenizer, sampling, seed, sampler.causal.context)
        if not guides:
            guides[0] = guide_of(reward, writer)
        [found] = thinker.think(writer, [prompt], guides[0])
        return found.chosen, described(found)

    return reply


def described(found: Found) -> str:
    """`3 of 4 say so · 97 tokens`."""
    alike = sum(answered(response.text) == answered(found.chosen.text) for response in found.responses)
    said = [f"{alike} of {len(found.responses)} say so"] if len(found.responses) > 1 else []
    return " · ".join([*said, f"{found.tokens} tokens"])
