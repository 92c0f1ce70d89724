"""The kinds of rows, recognised by the names of their columns.

    text                                   raw text
    messages                               the rest from the assistant's first turn on is learned; without such a turn, a prompt
    prompt, completion (or response)       supervised; each a text or a list of messages
    instruction, input, output             Alpaca: the same, with `system` where there is one
    conversations                          ShareGPT: messages by other names, `from` and `value`
    prompt, chosen, rejected               a preference, with `margin` and `weight` where there are any; without `prompt`, both are
                                           whole conversations, and what they begin with in common is the prompt; these may be
                                           messages, or texts as in Anthropic's hh-rlhf: "\\n\\nHuman: ...\\n\\nAssistant: ..."
    prompt, responses, ranking             the rank of each response: 1 is best, equal ranks are ties; with `weight`
    prompt, completion, label              a judgement of one response: true or false
    prompt                                 reinforcement learning

Every other column stays by its name, for rewards. A message of the assistant with `"loss": false`, or OpenAI's `"weight": 0`, is read and
not learned. All rows of a file have one shape, the one that most have, so that a missing column is not taken for another meaning.

Left out: columns that hold messages as JSON in a text (csv).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ikusei.tasks.cell_values import (
    Answer,
    answer_of,
    conversation,
    kind_of,
    messages_of,
    number_of,
    prompt_of,
    shared_beginning,
    spoken,
    text_of,
    turns_of,
)
from ikusei.types import Example, Message

LIKELY = {  # what others call it, for the suggested fix
    "prompt": ("question", "instruction", "input", "query", "problem"),
    "text": ("content", "document", "body"),
    "messages": ("conversation", "conversations", "chat", "dialog"),
    "completion": ("output", "answer", "response", "target", "reply"),
    "chosen": ("response_a", "chosen_response", "preferred", "accepted", "better", "winner", "positive"),
    "rejected": ("response_b", "rejected_response", "dispreferred", "refused", "worse", "loser", "negative"),
    "responses": ("answers", "completions", "candidates"),
    "ranking": ("ranks", "rank", "order", "rankings"),
}
RANKS = "a list with the rank of each response is needed: 1 is best, equal ranks are ties"
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A kind of row: its name for messages, the columns that identify it, and the function that reads them, removing them from the row."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], Example]


@dataclass(frozen=True)
class Reading:
    """A row as an example, its shape, and its columns."""

    example: Example
    shape: Shape
    columns: tuple[str, ...]


def read_row(row: Row) -> Reading:
    """Raises ValueError with what is wrong and the fix, where the row has no shape or breaks its rules."""
    names, own = tuple(row), dict(row)
    half = [name for name in ("chosen", "rejected") if name not in row]
    if len(half) == 1 and "messages" not in row:  # one half may have been renamed, to be learned by itself
        raise ValueError(lacking(names, half, "A preference needs prompt, chosen, rejected"))
    for shape in SHAPES:
        if all(_has(row, name) for name in shape.columns if not (name == "prompt" and "chosen" in row)):
            example = replace(shape.read(own), columns=own)
            return Reading(example, shape if example.responses else PROMPTS, names)
    raise ValueError(lacking(names, ["prompt"], "A row needs prompt, messages or text"))


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with our names for the user's: {prompt: question} makes the column `question` the column `prompt`."""
    for ours, theirs in columns.items():
        if theirs not in row:
            raise ValueError(f"column {theirs!r} missing (columns: {{{ours}: {theirs}}}). Columns seen: {', '.join(row)}")
        if ours in row and ours not in columns.values():
            raise ValueError(f"columns: {{{ours}: {theirs}}}, but there is a column {ours!r} too; rename that one as well")
    ours_of = {theirs: ours for ours, theirs in columns.items()}
    return {ours_of.get(name, name): value for name, value in row.items()}


def misfit(reading: Reading, usual: Shape) -> str:
    """Why a row is no row of the shape that most rows of its file have."""
    missing = [name for name in usual.columns if not _has(reading.columns, name)]
    if usual is PROMPTS and "prompt" in reading.columns:
        return "it holds an answer, and most rows of the file only prompts; give such rows a file of their own"
    if reading.shape is PROMPTS and "prompt" in reading.columns:
        return lacking(reading.columns, missing, f"Most rows of the file have {', '.join(usual.columns)}")
    if reading.shape is PROMPTS and not missing:
        return "the last message is not the assistant's, so there is nothing to learn; add the answer, or remove the row"
    return f"it reads as {reading.shape.name}, most rows of the file as {usual.name}; give such rows a file of their own"


def _has(row: Iterable[str], name: str) -> bool:
    return name in row or (name == "completion" and "response" in row)


def lacking(seen: Sequence[str], missing: Sequence[str], needs: str) -> str:
    """The columns that are missing, and what they are probably called here."""
    likely = {ours: near for ours in missing if (near := _near(ours, seen))}
    if not likely and missing == ["prompt"]:
        likely = _beginning(seen)
    mapping = ", ".join(f"{ours}: {theirs}" for ours, theirs in likely.items())
    fix = f"Try: columns: {{{mapping}}} if every row is so, else mend this row" if likely else "Add what is missing, or remove this row"
    names = ", ".join(map(repr, missing))
    return f"column{'s' if len(missing) > 1 else ''} {names} missing. Columns seen: {', '.join(seen) or 'none'}. {needs}. {fix}"


def _near(ours: str, seen: Iterable[str]) -> str | None:
    return next((name for name in seen if name.lower() in LIKELY.get(ours, ()) or difflib.get_close_matches(name.lower(), [ours])), None)


def _beginning(seen: Sequence[str]) -> dict[str, str]:
    """Where no column could be the prompt: one that could be what another shape begins with, else the first."""
    found = next(({ours: near} for ours in ("text", "messages") if (near := _near(ours, seen))), None)
    return found or {"prompt": seen[0] if seen else "your column"}


# How each shape is read: its columns are taken out of the row.


def _text(row: Row) -> Example:
    return Example(None, (text_of(row.pop("text"), "text"),))


def _messages(row: Row) -> Example:
    return Example(*conversation(messages_of(row.pop("messages"), "messages"), "messages"))


def _sharegpt(row: Row) -> Example:
    turns = row.pop("conversations")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) and {"from", "value"} <= turn.keys() for turn in turns):
        raise ValueError(
            'conversations is not of ShareGPT\'s form [{"from": "human", "value": "..."}]; '
            "messages with role and content are read with columns: {messages: conversations}"
        )
    for number, turn in enumerate(turns, start=1):
        if str(turn["from"]) not in SHAREGPT:
            raise ValueError(f"conversations: message {number} is from {turn['from']!r}; allowed: {', '.join(SHAREGPT)}")
    named = [{**turn, "role": SHAREGPT[turn["from"]], "content": turn["value"]} for turn in turns]
    return Example(*conversation((*_system(row), *messages_of(named, "conversations")), "conversations"))


def _alpaca(row: Row) -> Example:
    asked, about, system = text_of(row.pop("instruction"), "instruction"), row.pop("input", None), _system(row)
    asked += f"\n\n{text_of(about, 'input')}" if about else ""
    return Example((*system, Message(role="user", content=asked)) if system else asked, (text_of(row.pop("output"), "output"),))


def _system(row: Row) -> tuple[Message, ...]:
    text = row.pop("system", None)
    return (Message(role="system", content=text_of(text, "system")),) if text else ()


def _prompt_only(row: Row) -> Example:
    return Example(prompt_of(row.pop("prompt")))


def _completion(row: Row) -> Example:
    learned = [name for name in ("completion", "response") if name in row]
    if len(learned) == 2:
        raise ValueError("both 'completion' and 'response'; keep the one that is to be learned")
    return replace(_prompt_only(row), responses=(answer_of(row.pop(learned[0]), learned[0]),))


def _judged(row: Row) -> Example:
    label = row.pop("label")
    if isinstance(label, str) and label.lower() in ("true", "false"):  # a csv file holds texts
        label = label.lower() == "true"
    if not isinstance(label, bool):
        raise ValueError(f"label is {label!r}; true (a good answer) or false is needed; where it means something else, rename the column")
    return replace(_completion(row), labels=(float(label),))


def _preference(row: Row) -> Example:
    given = [turns_of(row.pop(name)) for name in ("chosen", "rejected")]
    margin, weight = row.pop("margin", None), _weight(row)
    if all(isinstance(each, list) and each and isinstance(each[0], dict) and each[0].get("role") != "assistant" for each in given):
        prompt, chosen, rejected = _whole(given[0], given[1], row.pop("prompt", None))
    elif "prompt" in row:
        prompt, chosen, rejected = prompt_of(row.pop("prompt")), answer_of(given[0], "chosen"), answer_of(given[1], "rejected")
    else:
        raise ValueError(lacking(["chosen", "rejected", *row], ["prompt"], "A preference needs it, or two whole conversations"))
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal, so there is nothing to prefer; remove the row, or mend one of them")
    return Example(prompt, (chosen, rejected), tiers=(0, 1), margin=None if margin is None else number_of(margin, "margin"), weight=weight)


def _whole(chosen: Any, rejected: Any, prompt: Any) -> tuple[tuple[Message, ...], Answer, Answer]:
    """Two whole conversations: the prompt is what they begin with in common, and may be told in its own column too."""
    one, other = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
    size = shared_beginning(one, other)
    if size == 0:
        raise ValueError("chosen and rejected begin with different messages; both need the same prompt before their answers")
    shared = one[:size]
    if prompt is not None and prompt not in (list(shared), *(message["content"] for message in shared)):
        raise ValueError("prompt is not what chosen and rejected begin with; make them one, or remove the column 'prompt'")
    return shared, spoken(one[size:], "chosen"), spoken(other[size:], "rejected")


def _ranking(row: Row) -> Example:
    answers, ranks = row.pop("responses"), row.pop("ranking")
    if not isinstance(answers, list) or len(answers) < 2:
        got = f"a list of {len(answers)}" if isinstance(answers, list) else kind_of(answers)
        raise ValueError(f"responses is {got}; a list of two answers or more is needed, or there is nothing to rank")
    responses = tuple(answer_of(answer, f"responses: answer {number}") for number, answer in enumerate(answers, start=1))
    twice = next((number for number, answer in enumerate(responses, start=1) if answer in responses[: number - 1]), None)
    if twice:
        raise ValueError(f"responses: answer {twice} is there twice; keep one of the two, with one rank")
    if not isinstance(ranks, list) or not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks):
        raise ValueError(f"ranking is {ranks!r}; {RANKS}")
    if len(ranks) != len(responses):
        raise ValueError(f"ranking {ranks} has {len(ranks)} ranks for {len(responses)} responses; {RANKS}")
    if len(set(ranks)) == 1:
        raise ValueError(f"ranking {ranks}: all are tied, so there is nothing to prefer; remove the row, or rank them")
    tiers = tuple(sorted(set(ranks)).index(rank) for rank in ranks)
    return replace(_prompt_only(row), responses=responses, tiers=tiers, weight=_weight(row))


def _weight(row: Row) -> float:
    weight = row.pop("weight", None)
    return 1.0 if weight is None else number_of(weight, "weight")


PROMPTS = Shape("prompts, and columns for rewards", ("prompt",), _prompt_only)
RAW_TEXT = Shape("raw text", ("text",), _text)
SHAPES = (  # the first one whose columns are all there
    Shape("preferences (prompt, chosen, rejected)", ("prompt", "chosen", "rejected"), _preference),
    Shape("rankings (prompt, responses, ranking)", ("prompt", "responses", "ranking"), _ranking),
    Shape("judged answers (prompt, completion, label)", ("prompt", "completion", "label"), _judged),
    Shape("messages, of which the assistant's are learned", ("messages",), _messages),
    Shape("ShareGPT (conversations) read as messages", ("conversations",), _sharegpt),
    Shape("prompt and completion", ("prompt", "completion"), _completion),
    Shape("Alpaca (instruction, input, output) read as prompt and completion", ("instruction", "output"), _alpaca),
    PROMPTS,
    RAW_TEXT,
)
