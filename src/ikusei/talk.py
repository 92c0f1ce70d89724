"""Talk with a model: a few answers to one prompt, or a conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from ikusei.models.causal import CausalModel
from ikusei.models.load import load_model, load_tokenizer
from ikusei.models.probe import probe
from ikusei.run.folder import checkpoints, list_runs
from ikusei.samplers.local import LocalSampler
from ikusei.text.answer import split_thought
from ikusei.text.chat import render
from ikusei.types import Example, Message, Prompt, Response, Sampling

Reply = Callable[[LocalSampler, Prompt, Sampling, int], tuple[Response, str]]  # by a seed; and a word on how it was found


def find_model(name: str | None, root: Path = Path("runs")) -> str:
    """The model meant: a run folder stands for what it raised; no name for the newest run that raised something, else the seedling."""
    if name is None:
        raised = [run.path / "final" for run in list_runs(root) if (run.path / "final").is_dir()]
        return str(raised[-1]) if raised else "seedling"
    folder = Path(name)
    if (folder / "run.json").exists():
        saved = [path for _, path in checkpoints(folder)]
        if not (folder / "final").is_dir() and not saved:
            raise ValueError(f"{name}: this run has raised nothing yet: it has no final/ and no checkpoint; go on with --resume {name}")
        return str(folder / "final" if (folder / "final").is_dir() else saved[-1])
    return name


def load_sampler(model: str, num_slots: int = 64) -> LocalSampler:
    """A sampler of its own, for talking and measuring."""
    weights = load_model(model)
    return LocalSampler(CausalModel(weights, probe(weights).layout), load_tokenizer(model), num_slots)


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


def chat(model: str, sampling: Sampling, turns: bool, console: Console, reply: Reply = at_once) -> None:
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
