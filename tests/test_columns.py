"""What rows mean by their columns: each shape as it is found in the wild, and each way to get it wrong, told with place and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ikusei.tasks.files import Files
from ikusei.types import Example, Message

USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "be kind"}
HELLO = {"role": "assistant", "content": "hello"}
AGAIN = {"role": "user", "content": "and?"}
BYE = {"role": "assistant", "content": "bye"}
QUIET = {**HELLO, "loss": False}


def write(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def read(folder: Path, row: dict[str, Any]) -> tuple[Example, str]:
    task = Files(write(folder, [row]))
    return task.row("train", 0), task.shape


def fault(folder: Path, *rows: Any, **settings: Any) -> list[str]:
    path = write(folder, list(rows))
    with pytest.raises(ValueError) as caught:
        Files(path, **settings).num_rows("train")
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def said(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(**message) for message in messages)


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
ALPACA = {"instruction": "add", "input": "1 2", "output": "3"}
SHAREGPT = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]

SHAPES: list[tuple[dict[str, Any], Example, str]] = [
    ({"text": "むかし むかし", "source": "s"}, Example(None, ("むかし むかし",), {"source": "s"}), "raw text"),
    ({"prompt": "a", "answer": "b"}, Example("a", (), {"answer": "b"}), "prompts, and columns for rewards"),
    ({"prompt": [USER], "answer": "b"}, Example(said(USER), (), {"answer": "b"}), "prompts"),
    ({"prompt": "a", "completion": "b"}, Example("a", ("b",)), "prompt and completion"),
    ({"prompt": [USER], "response": "b", "level": 2}, Example(said(USER), ("b",), {"level": 2}), "prompt and completion"),
    ({"prompt": [USER], "completion": [HELLO]}, Example(said(USER), ("hello",)), "prompt and completion"),
    ({"prompt": "a", "completion": [HELLO, AGAIN, BYE]}, Example("a", (said(HELLO, AGAIN, BYE),)), "prompt and completion"),
    ({"messages": [USER, HELLO]}, Example(said(USER), ("hello",)), "messages, of which the assistant's are learned"),
    ({"messages": [SYSTEM, USER, HELLO, AGAIN, BYE]}, Example(said(SYSTEM, USER), (said(HELLO, AGAIN, BYE),)), "messages"),
    ({"messages": [USER, QUIET, AGAIN, BYE]}, Example(said(USER), (said(QUIET, AGAIN, BYE),)), "messages"),
    (
        {"messages": [USER, {**HELLO, "weight": 0}, AGAIN, {**BYE, "weight": 1}]},
        Example(said(USER), (said(QUIET, AGAIN, BYE),)),
        "messages",
    ),
    ({"messages": [USER]}, Example(said(USER)), "prompts"),
    ({"messages": [USER, HELLO, AGAIN]}, Example(said(USER, HELLO, AGAIN)), "prompts"),
    ({"conversations": SHAREGPT}, Example(said(SYSTEM, USER), ("hello",)), "ShareGPT (conversations) read as messages"),
    ({"conversations": SHAREGPT[1:], "system": "be kind"}, Example(said(SYSTEM, USER), ("hello",)), "ShareGPT"),
    (ALPACA, Example("add\n\n1 2", ("3",)), "Alpaca (instruction, input, output) read as prompt and completion"),
    ({**ALPACA, "input": "", "text": "Below is"}, Example("add", ("3",), {"text": "Below is"}), "Alpaca"),
    ({**ALPACA, "system": "be kind"}, Example(said(SYSTEM, {"role": "user", "content": "add\n\n1 2"}), ("3",)), "Alpaca"),
    (PAIR, Example("a", ("b", "c"), tiers=(0, 1)), "preferences (prompt, chosen, rejected)"),
    ({**PAIR, "margin": 2, "weight": 0.5, "by": "Ei"}, Example("a", ("b", "c"), {"by": "Ei"}, (0, 1), 2.0, 0.5), "preferences"),
    ({"prompt": [USER], "chosen": [HELLO], "rejected": [BYE]}, Example(said(USER), ("hello", "bye"), tiers=(0, 1)), "preferences"),
    ({"chosen": [USER, HELLO], "rejected": [USER, BYE]}, Example(said(USER), ("hello", "bye"), tiers=(0, 1)), "preferences"),
    (
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: bye\n\nHuman: and?\n\nAssistant: hello"},
        Example(
            said(USER),
            ("hello", said(BYE, AGAIN, HELLO)),
            tiers=(0, 1),
        ),
        "preferences",
    ),
    ({"messages": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "x"}, Example(said(USER), ("hello",), {"rejected": "x"}), "messages"),
    (
        {"prompt": "hi", "chosen": [USER, HELLO], "rejected": [USER, BYE]},
        Example(said(USER), ("hello", "bye"), tiers=(0, 1)),
        "preferences",
    ),
    (
        {"chosen": [USER, HELLO, AGAIN, HELLO], "rejected": [USER, HELLO, AGAIN, BYE]},
        Example(said(USER, HELLO, AGAIN), ("hello", "bye"), tiers=(0, 1)),
        "preferences",
    ),
    (  # they part after an answer, in what the user says: then that answer is no part of the prompt
        {"chosen": [USER, HELLO, AGAIN, BYE], "rejected": [USER, HELLO]},
        Example(said(USER), (said(HELLO, AGAIN, BYE), "hello"), tiers=(0, 1)),
        "preferences",
    ),
    (
        {"prompt": "a", "responses": ["b", "c", "d", "e"], "ranking": [3, 1, 3, 7], "weight": 2},
        Example("a", ("b", "c", "d", "e"), tiers=(1, 0, 1, 2), weight=2.0),
        "rankings (prompt, responses, ranking)",
    ),
    ({"prompt": "a", "responses": ["b", [HELLO]], "ranking": [0, 1]}, Example("a", ("b", "hello"), tiers=(0, 1)), "rankings"),
    ({"prompt": "a", "completion": "b", "label": True}, Example("a", ("b",), labels=(1.0,)), "judged answers (prompt, completion, label)"),
    ({"prompt": "a", "response": "b", "label": False}, Example("a", ("b",), labels=(0.0,)), "judged answers"),
]


@pytest.mark.parametrize(("row", "example", "shape"), SHAPES)
def test_each_shape_is_recognised(tmp_path: Path, row: dict[str, Any], example: Example, shape: str) -> None:
    found, told = read(tmp_path, row)
    assert found == example and told.startswith(shape)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({**PAIR, "rejected": "b"}, "chosen and rejected are equal, so there is nothing to prefer; remove the row"),
    ({"chosen": [USER, HELLO], "rejected": [USER, HELLO]}, "chosen and rejected are equal"),
    ({"chosen": [USER, HELLO], "rejected": [AGAIN, HELLO]}, "begin with different messages; both need the same prompt"),
    ({"chosen": [USER, HELLO], "rejected": [USER, BYE, AGAIN]}, "rejected: the last message is not the assistant's"),
    ({"chosen": [USER, HELLO], "rejected": [USER]}, "rejected: no answer of the assistant comes first after the prompt"),
    ({"prompt": "ho", "chosen": [USER, HELLO], "rejected": [USER, BYE]}, "prompt is not what chosen and rejected begin with"),
    ({"chosen": "a", "rejected": "b"}, "column 'prompt' missing. Columns seen: chosen, rejected. A preference needs it, or two whole"),
    (
        {"prompt": "a", "chosen": "b"},
        "column 'rejected' missing. Columns seen: prompt, chosen. A preference needs prompt, chosen, rejected.",
    ),
    ({**PAIR, "margin": -1}, "margin is -1; a number of 0 or more is needed"),
    ({**PAIR, "margin": True}, "margin is True; a number"),
    ({**PAIR, "weight": "much"}, "weight is 'much'; a number"),
    ({"prompt": "a", "responses": ["b"], "ranking": [1]}, "responses is a list of 1; a list of two answers or more"),
    ({"prompt": "a", "responses": "b", "ranking": [1]}, "responses is a text; a list of two answers or more"),
    ({"prompt": "a", "responses": ["b", "c"], "ranking": [1, 1]}, "ranking [1, 1]: all are tied, so there is nothing to prefer"),
    ({"prompt": "a", "responses": ["b", "c"], "ranking": [1]}, "has 1 ranks for 2 responses; a list with the rank of each response"),
    (
        {"prompt": "a", "responses": ["b", "c"], "ranking": [1, 0.5]},
        "ranking is [1, 0.5]; a list with the rank of each response is needed: 1",
    ),
    ({"prompt": "a", "responses": ["b", "c", "b"], "ranking": [1, 2, 3]}, "responses: answer 3 is there twice"),
    ({"prompt": "a", "responses": ["b", ""], "ranking": [1, 2]}, "responses: answer 2 is an empty text"),
    ({"prompt": "a", "completion": "b", "label": 1}, "label is 1; true (a good answer) or false is needed"),
    ({"prompt": "a", "completion": "b", "label": "good"}, "label is 'good'; true"),
    ({"messages": [HELLO, USER, BYE]}, "messages: the assistant speaks first; a message of the user is needed before it"),
    ({"messages": [USER, QUIET]}, 'messages: every message of the assistant has "loss": false, so there is nothing to learn'),
    ({"messages": [{**USER, "loss": True}, HELLO]}, "only the assistant's messages can be learned"),
    ({"messages": [USER, {**HELLO, "weight": 0.5}]}, "message 2 has {'weight': 0.5}; allowed: \"loss\": true or false"),
    ({"messages": [USER, {**HELLO, "weight": 0, "loss": True}]}, "which say the same"),
    ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages: message 2 is an empty text"),
    ({"prompt": [USER, HELLO], "completion": "b"}, "prompt: the last message is the assistant's"),
    ({"prompt": "a", "completion": [USER, HELLO]}, "completion: no answer of the assistant comes first after the prompt"),
    ({"prompt": "a", "completion": []}, "completion is a list; a list of messages is needed"),
    ({"conversations": [{"from": "wizard", "value": "a"}]}, "message 1 is from 'wizard'; allowed: human, user, gpt, assistant, system"),
    ({"conversations": [USER, HELLO]}, "are read with columns: {messages: conversations}"),
    ({"conversations": SHAREGPT[2:]}, "conversations: the assistant speaks first"),
    ({**ALPACA, "input": 12}, "input is a number; a text"),
    ({**ALPACA, "output": ""}, "output is an empty text"),
    ({}, "column 'prompt' missing. Columns seen: none"),
]


@pytest.mark.parametrize(("row", "message"), BROKEN)
def test_what_is_wrong_is_told_with_its_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"prompt": "a", "completion": "b"}
    [line] = fault(tmp_path, good, good, row)
    assert line.startswith("3: ") and message in line


def test_all_rows_of_a_file_have_one_shape(tmp_path: Path) -> None:
    """A row with a column less is not taken for another shape."""
    pair = {"prompt": "q", "chosen": "c", "rejected": "d"}
    assert fault(tmp_path, pair, {"prompt": "a", "response_a": "b", "response_b": "c"}, pair) == [
        "2: columns 'chosen', 'rejected' missing. Columns seen: prompt, response_a, response_b. Most rows of the file have prompt, chosen, "
        "rejected. Try: columns: {chosen: response_a, rejected: response_b} if every row is so, else mend this row"
    ]
    talk = {"messages": [USER, HELLO]}
    [line] = fault(tmp_path, talk, {"messages": [USER, HELLO, AGAIN]}, talk)
    assert line == "2: the last message is not the assistant's, so there is nothing to learn; add the answer, or remove the row"
    supervised, prompt = {"prompt": "a", "completion": "b"}, {"prompt": "c"}
    [line] = fault(tmp_path, supervised, supervised, prompt)
    assert line.startswith("3: column 'completion' missing. Columns seen: prompt. ")
    [line] = fault(tmp_path, prompt, supervised, prompt)
    assert line.startswith("2: it holds an answer, and most rows of the file only prompts")
    [line] = fault(tmp_path, talk, talk, {"text": "x"})
    assert line.startswith("3: it reads as raw text, most rows of the file as messages")


def test_the_columns_of_a_preference_can_be_renamed(tmp_path: Path) -> None:
    row = {"question": "q", "response_a": "b", "response_b": "c"}
    names = {"prompt": "question", "chosen": "response_a", "rejected": "response_b"}
    task = Files(write(tmp_path, [row]), columns=names)
    assert task.row("train", 0) == Example("q", ("b", "c"), tiers=(0, 1))
    half = {name: names[name] for name in ("prompt", "chosen")}
    assert fault(tmp_path, row, columns=half) == [
        "1: column 'rejected' missing. Columns seen: prompt, chosen, response_b. A preference needs prompt, chosen, rejected. "
        "Try: columns: {rejected: response_b} if every row is so, else mend this row"
    ]


def test_a_csv_file_holds_numbers_and_labels_as_texts(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("prompt,chosen,rejected,margin\na,b,c,0.5\n")
    assert Files(tmp_path / "pairs.csv").row("train", 0) == Example("a", ("b", "c"), tiers=(0, 1), margin=0.5)
    (tmp_path / "votes.csv").write_text("prompt,completion,label\na,b,true\nc,d,False\n")
    votes = Files(tmp_path / "votes.csv", test_share=0)
    assert [votes.row("train", index).labels for index in range(2)] == [(1.0,), (0.0,)]


def test_what_parquet_leaves_empty_is_not_given(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER, QUIET, AGAIN, BYE], "margin": None},
        {"messages": [USER, HELLO], "margin": 1.5},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    task = Files(tmp_path / "rows.parquet", test_share=0)
    assert task.row("train", 0) == Example(said(USER), (said(QUIET, AGAIN, BYE),), {"margin": None})
    assert task.row("train", 1) == Example(said(USER), ("hello",), {"margin": 1.5})


def test_the_answers_to_one_prompt_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i % 30}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(120)]
    task = Files(write(tmp_path, rows), test_share=0.3)
    train, test = ({task.row(split, i).prompt for i in range(task.num_rows(split))} for split in ("train", "test"))
    assert not train & test and len(train | test) == 30 and 2 < len(test) < 20
