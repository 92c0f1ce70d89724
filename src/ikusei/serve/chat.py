"""Sample a model: several answers to one prompt, or a conversation in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rich.console import Console

from ikusei.eval_metrics.choosing import answered
from ikusei.samplers.continuation import Writer
from ikusei.samplers.load import load_sampler
from ikusei.samplers.local import LocalSampler
from ikusei.search.answer import guide_of
from ikusei.search.method import Guide, Result
from ikusei.search.methods import read_method
from ikusei.text.answer import split_thought
from ikusei.text.chat import render
from ikusei.text.conversation import decode
from ikusei.types import Example, Message, Prompt, Response, Sampling

Reply = Callable[[LocalSampler, Prompt, Sampling, int], Result]  # the last one is the seed
TAG = re.compile(r"</?think>")
TAG_BEGUN = re.compile(r"<(/?(t(h(i(nk?)?)?)?)?)?$")


def answers(model: str, prompt: str, num: int, sampling: Sampling, seed: int) -> tuple[Response, ...]:
    """`num` answers to one prompt."""
    sampler = load_sampler(model)
    (group,) = sampler.sample([render(sampler.tokenizer, Example(prompt))], num, sampling, seed)
    return group.responses


def converse(model: str, sampling: Sampling, turns: bool, console: Console, reply: Reply | None = None) -> None:
    """Questions and answers until an empty line, Ctrl-D or Ctrl-C. Each line is asked alone, as prompts are in training, or, with `turns`,
    after all that was said before. A thought is shown dim. Without `reply` an answer is shown while it is written; with one, beside it how
    it was chosen."""
    sampler = load_sampler(model)
    how = "it remembers the conversation, /new begins anew" if turns else "each line is asked alone, --turns remembers"
    console.print(f"[bold]{model}[/] · {how} · an empty line ends", highlight=False)
    messages: list[Message] = []
    num_asked = 0  # the seed: the same question again may be answered otherwise
    while True:
        try:
            line = console.input("[bold cyan]you[/]  ").strip()
        except EOFError:
            line = ""
        if not line:
            return
        if line == "/new" or not turns:
            messages = []
        if line == "/new":
            continue
        messages.append(Message(role="user", content=line))
        num_asked += 1
        prompt = _rendered(sampler, messages, line)
        while len(messages) > 1 and len(prompt.tokens) + sampling.max_tokens > sampler.context:
            messages = messages[2:]  # the oldest question and its answer are forgotten
            prompt = _rendered(sampler, messages, line)
        console.print("[bold green]model[/] ", end="")
        if reply is None:
            opened = decode(sampler.tokenizer, prompt.tokens).rstrip().endswith("<think>")
            response = show_stream(sampler.stream(prompt, sampling, num_asked), console, opened)
        else:
            response = show(reply(sampler, prompt, sampling, num_asked), console)
        messages.append(Message(role="assistant", content=response.text))


def _rendered(sampler: LocalSampler, messages: list[Message], line: str) -> Prompt:
    return render(sampler.tokenizer, Example(tuple(messages) if sampler.tokenizer.chat_template else line))


def show(result: Result, console: Console) -> Response:
    """Prints what a method chose, and how."""
    thought, answer = split_thought(result.chosen.text)
    if thought:
        console.print(f"({thought}) ", style="dim", end="", markup=False, highlight=False)
    console.print(answer or "…", end="", markup=False, highlight=False)
    console.print(f"  {described(result)}", style="dim", markup=False, highlight=False)
    return result.chosen


def show_stream(stream: Iterator[str | Response], console: Console, thinking: bool = False) -> Response:
    """Prints the pieces of a response as they come, thoughts dim and in brackets. `thinking`: the prompt has opened the thought."""

    def put(text: str, style: str = "") -> None:
        console.print(text, style=style, end="", markup=False, highlight=False, soft_wrap=True)

    tags, response = ThoughtReader(thinking), None
    shown = spaces = ""  # of the thought or answer that is being shown; spaces wait until a word follows
    for item in stream:
        response = item if isinstance(item, Response) else None
        for is_thought, text in tags.read(item if isinstance(item, str) else "", last=response is not None):
            if is_thought != thinking:
                put(") " if thinking and shown else "", "dim")
                thinking, shown, spaces = is_thought, "", ""
            text = spaces + text if shown else text.lstrip()
            word = text.rstrip()
            put("(" if thinking and word and not shown else "", "dim")
            put(word, "dim" if thinking else "")
            shown, spaces = shown + word, text[len(word) :]
    put(") " if thinking and shown else "", "dim")
    put("\n" if shown and not thinking else "…\n")
    assert response is not None, "a stream ends with its response"
    return response


class ThoughtReader:
    """Tells thoughts from the rest in text that comes in pieces. What may be the beginning of a tag waits until it is one or not."""

    def __init__(self, thinking: bool) -> None:
        self.thinking, self.waiting = thinking, ""

    def read(self, piece: str, last: bool = False) -> Iterator[tuple[bool, str]]:
        """(whether it is a thought, text) without the tags."""
        self.waiting += piece
        while tag := TAG.search(self.waiting):
            yield self.thinking, self.waiting[: tag.start()]
            self.thinking, self.waiting = tag.group() == "<think>", self.waiting[tag.end() :]
        begun = None if last else TAG_BEGUN.search(self.waiting)
        end = begun.start() if begun else len(self.waiting)
        yield self.thinking, self.waiting[:end]
        self.waiting = self.waiting[end:]


def replier(text: str) -> Reply:
    """A test-time method as a reply in a conversation. `text` as in `read_method`."""
    (method, reward), guides = read_method(text), dict[int, Guide | None]()

    def reply(sampler: LocalSampler, prompt: Prompt, sampling: Sampling, seed: int) -> Result:
        writer = Writer(sampler, sampling, seed)
        if not guides:
            guides[0] = guide_of(reward, writer)
        [result] = method.run(writer, [prompt], guides[0])
        return result

    return reply


def described(result: Result) -> str:
    """`3 of 4 agree · 97 tokens`."""
    agree = sum(answered(response.text) == answered(result.chosen.text) for response in result.responses)
    votes = [f"{agree} of {len(result.responses)} agree"] if len(result.responses) > 1 else []
    return " · ".join([*votes, f"{result.tokens} tokens"])
