"""The commands that sample and score with a model: `ikusei sample`, `chat` and `score`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from ikusei.cli.common import AsJson, out
from ikusei.models.first_import import loading
from ikusei.search.methods import help_text

METHOD_HELP = (
    f"Spend more on an answer, by a test-time method: Nx (the vote of N answers) or NAME:Nx, for example rounds:16x.\n{help_text(False)}"
)
METHOD_HELP += f"\n\nWith a reward model (a folder or a run), NAME:Nx:FOLDER:\n{help_text(True)}"
Method = Annotated[str | None, Parameter(help=METHOD_HELP)]


def sample(
    prompt: str,
    *,
    model: str | None = None,
    num: int | None = None,
    temperature: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
    think: Method = None,
    as_json: AsJson = False,
) -> int:
    """Write answers to a prompt, or one by a test-time method.

    Parameters
    ----------
    model
        A folder, a run, a hub id or seedling (default: the newest run).
    num
        How many answers (default: 4).
    """
    with loading():  # torch and transformers: seconds
        from ikusei.serve.chat import answers
    from ikusei.run.find import find_model
    from ikusei.types import Sampling

    sampling = Sampling(temperature, max_tokens=max_tokens)
    if think is None:
        responses, notes = answers(find_model(model), prompt, num or 4, sampling, seed), {}
    elif num is not None:
        raise ValueError(f"sample: got --num {num} and --think {think}; allowed: one of them; --think gives one answer")
    else:
        from ikusei.search.answer import answer
        from ikusei.search.methods import read_method

        result = answer(model, prompt, *read_method(think), sampling=sampling, seed=seed)
        responses, notes = (result.chosen,), {"tokens": result.tokens, "chosen_from": len(result.responses)}
    if as_json:
        rows = [{"text": r.text, "stop": r.stop, "logprob": sum(r.logprobs or ()), **notes} for r in responses]
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    for response in responses:
        out.print(response.text, markup=False, highlight=False)
    return 0


def chat(
    model: str | None = None,
    *,
    turns: Annotated[bool, Parameter(negative=())] = False,
    temperature: float = 0.7,
    max_tokens: int = 512,
    think: Method = None,
) -> int:
    """Talk with a model.

    Parameters
    ----------
    model
        A folder, a run, a hub id or seedling (default: the newest run).
    turns
        It remembers what was said.
    """
    with loading():  # torch and transformers: seconds
        from ikusei.serve.chat import converse, replier
    from ikusei.run.find import find_model
    from ikusei.serve.chat import converse, replier  # torch and transformers: seconds
    from ikusei.types import Sampling

    reply = None if think is None else replier(think)
    converse(find_model(model), Sampling(temperature, max_tokens=max_tokens), turns, out, reply)
    return 0


def score(
    *texts: str,
    prompt: str | None = None,
    model: str | None = None,
    file: Path | None = None,
    open: Annotated[bool, Parameter(negative=())] = False,
    tokens: Annotated[bool, Parameter(negative=())] = False,
    as_json: AsJson = False,
) -> int:
    """log P of texts under a model, in nats: how likely it is to write exactly this and to end there.

    Parameters
    ----------
    texts
        The texts to score, each in quotes.
    prompt
        What they answer, asked by the chat template (default: nothing; they are raw text after the separator token).
    model
        A folder, a run, a hub id or seedling (default: the newest run).
    file
        More texts: one a line, or .jsonl with a `text` in each row.
    open
        Leave out the token that ends a text: the probability of all strings that begin so.
    tokens
        Show log p of each token.
    """
    with loading():
        from ikusei.pipeline.probability_mass import scores
    from ikusei.run.files import plain

    scored = scores(model, texts, file, prompt, ends=not open)
    if as_json:
        rows = [{**asdict(each), "logp": each.logp, "bits_per_byte": each.bits_per_byte} for each in scored]
        print(json.dumps(plain(rows), ensure_ascii=False))
        return 0
    table = Table("P", "log P", "per token", "bits per byte", "text", box=None, padding=(0, 2))
    for each in scored:
        numbers = (f"{number:.4f}" for number in (each.logp, each.per_token, each.bits_per_byte))
        table.add_row(each.probability, *numbers, Text(each.text, overflow="fold"))
        for token, logp in each.spelled if tokens else ():
            table.add_row("", f"{logp:.4f}", "", "", Text(token, "dim"))
    out.print(table)
    out.print("in nats, of", "all strings that begin so" if open else "each text and the token that ends it", style="dim")
    return 0
