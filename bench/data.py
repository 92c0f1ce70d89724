"""The rows and the weights of a workload, made once from a seed and read by both sides from one folder.

A word of the made models is a number, `12`, and its id is that number, so a text says its tokens. Text `i` of a seed is always the same.
Left out: real text. What a step costs depends on lengths and shapes alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sides import Asked
from workloads import Model, Workload

from ikusei.types import Example, Split

PAD, END = 0, 1  # the ids that are no words
FIRST_WORD = 2
SEEDLING = Path(__file__).parents[1] / "seedling"

Row = dict[str, Any]


def serve(asked: Asked, work: Workload, folder: Path) -> None:
    """`prepare` in a process that ends, so that what it takes is free again."""
    prepare(work, folder)
    asked.ready({})


def prepare(work: Workload, folder: Path) -> None:
    """Writes `rows.json` and, where the model is a made one, `model/`. What is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.json").exists():
        (folder / "rows.json").write_text(json.dumps(list(rows_of(work))))
    if work.model is not None and not (folder / "model").exists():
        make_model(work.model, work.kind == "reward", folder / "model")


def read_rows(folder: Path) -> list[Row]:
    return json.loads((folder / "rows.json").read_text())


def model_folder(work: Workload, folder: Path) -> Path:
    return SEEDLING if work.model is None else folder / "model"


def rows_of(work: Workload) -> Iterator[Row]:
    """One for each prompt, pair, ranking or text of all steps."""
    chance = random.Random(work.name.split()[0])
    for _ in range(work.rows):
        match work.kind:
            case "grpo" | "skip":
                yield _sum(chance, work.hard) if work.model is None else {"prompt": _words(chance, work.model, work.prompt)}
            case "dpo" | "reward":
                yield _ranking(chance, work)
            case "sft":
                length = min(512, max(16, round(chance.lognormvariate(4.6, 0.8))))
                yield {"text": _sentence(chance, work, length - 2)}  # before and after it stands an end token


def _sum(chance: random.Random, hard: bool) -> Row:
    """`123+456=`; where it is hard, half of them have more digits and terms."""
    digits, terms = (chance.randint(4, 6), chance.randint(2, 4)) if hard and chance.random() < 0.5 else (3, 2)
    numbers = [chance.randrange(10 ** (digits - 1), 10**digits) for _ in range(terms)]
    return {"prompt": "+".join(map(str, numbers)) + "=", "answer": str(sum(numbers))}


def _ranking(chance: random.Random, work: Workload) -> Row:
    """Answers, the best first: the better, the more of its words are even. Lengths lie around `work.response`."""
    assert work.model is not None
    shares = [1 - i / (work.num_responses - 1) for i in range(work.num_responses)]
    answers = []
    for share in shares:
        length = chance.randint(work.response * 3 // 4, work.response)
        answers.append(" ".join(str(_word(chance, work.model.words, chance.random() < share)) for _ in range(length - 1)))
    return {"prompt": _words(chance, work.model, work.prompt), "answers": answers}


def _word(chance: random.Random, words: int, even: bool) -> int:
    word = chance.randrange(FIRST_WORD, words - 1)
    return word + (word % 2 == even)


def _words(chance: random.Random, model: Model, length: int) -> str:
    return " ".join(str(chance.randrange(FIRST_WORD, model.words)) for _ in range(length))


def _sentence(chance: random.Random, work: Workload, length: int) -> str:
    """Each word says much of the next one, so that there is something to learn."""
    assert work.model is not None
    word, said = chance.randrange(FIRST_WORD, work.model.words), []
    for _ in range(length):
        said.append(str(word))
        word = FIRST_WORD + (word * 31 + chance.randrange(4)) % (work.model.words - FIRST_WORD)
    return " ".join(said)


def make_model(model: Model, reward: bool, folder: Path) -> None:
    """Random weights from a fixed seed, and the tokenizer of numbers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    ids = {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None, "max_position_embeddings": 4096}
    config = AutoConfig.for_model(model.architecture, **model.config, **ids, **({"num_labels": 1} if reward else {}))
    torch.manual_seed(0)
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    kind.from_config(config, dtype=torch.float32).save_pretrained(folder)
    make_tokenizer(model.words).save_pretrained(folder)


def make_tokenizer(words: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<|pad|>", "<|end|>", *map(str, range(FIRST_WORD, words))]
    tokenizer = Tokenizer(models.WordLevel({name: token for token, name in enumerate(names)}, unk_token=names[PAD]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=names[PAD], eos_token=names[END])


def even_share(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
    """A reward that can be learned from the tokens alone: the share of words that are even. Both sides call this function."""
    numbers = [[int(word) for word in completion.split() if word.isdigit()] for completion in completions]
    return [sum(number % 2 == 0 for number in row) / max(1, len(row)) for row in numbers]


@dataclass(frozen=True)
class Listed:
    """A task of the rows that are given (`protocols.Task`)."""

    kind: str
    rows: tuple[Row, ...]

    rewards: ClassVar[tuple[str, ...]] = ()

    def num_rows(self, split: Split) -> int:
        return len(self.rows)

    def row(self, split: Split, index: int) -> Example:
        row = self.rows[index]
        if self.kind == "sft":
            return Example(None, (row["text"],))
        columns = {name: value for name, value in row.items() if name == "answer"}
        answers = tuple(row.get("answers", ()))
        return Example(row["prompt"], answers, columns, tuple(range(len(answers))) or None)
