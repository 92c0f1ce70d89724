"""The recipes for real models on one GPU, with a tiny checkpoint of the same family and rows of the same shape, a few steps each."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Tokenizer

from ikusei.cli.main import main
from ikusei.text.train_tokenizer import train_tokenizer

RECIPES = Path(__file__).parents[1] / "recipes" / "gpu"
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SHORT = ["train.steps=2", "eval.num_prompts=2", "eval.num_samples=2", "sampling.max_tokens=8"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Qwen2.5-Instruct: its class of tokenizer, its template and its two ends."""
    folder = tmp_path_factory.mktemp("hub") / "qwen"
    texts = [f"{a} + {b} = {a + b} apples" for a in range(30) for b in range(30)]
    learned = json.loads(train_tokenizer(texts, "bpe", 320).backend_tokenizer.to_str())
    merges = [tuple(pair) for pair in learned["model"]["merges"]]
    tokens = {token: index for index, token in enumerate(token for token in learned["model"]["vocab"] if not token.startswith("<|"))}
    tokenizer = Qwen2Tokenizer(
        tokens, merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None,
        additional_special_tokens=["<|im_start|>"], chat_template=CHATML,
    )  # fmt: skip
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = AutoConfig.for_model("qwen2", **SMALL, vocab_size=len(tokenizer) + 5, max_position_embeddings=512, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gsm8k() -> Iterator[dict[str, Any]]:
    for n in range(40):
        yield {"question": f"Natalia has {n} apples and buys 2. How many?", "answer": f"{n} + 2 = <<{n}+2={n + 2}>>{n + 2}\n#### {n + 2}"}


def ultrafeedback() -> Iterator[dict[str, Any]]:
    for n in range(40):
        asked = {"role": "user", "content": f"Count to {n}."}
        said = [[asked, {"role": "assistant", "content": text}] for text in (f"1 2 3 {n}", f"no {n}")]
        yield {
            "prompt": f"Count to {n}.", "prompt_id": f"{n:064x}", "chosen": said[0], "rejected": said[1], "messages": said[0],
            "score_chosen": 8.5, "score_rejected": 6.0,
        }  # fmt: skip
    yield {"prompt": "Same.", "chosen": said[0], "rejected": said[0]}  # as a few of the data set's rows: nothing to prefer


def hh() -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    for n in range(60):
        before = "".join(f"\n\nHuman: why {chance.randrange(9)}?\n\nAssistant: because {t}" for t in range(chance.randrange(3)))
        asked = f"{before}\n\nHuman: and {n}?"
        yield {"chosen": f"{asked}\n\nAssistant: {n} it is, my friend", "rejected": f"{asked}\n\nAssistant: no"}


CASES = {"gsm8k_grpo": ("gsm8k", gsm8k), "ultrafeedback_dpo": ("ultrafeedback", ultrafeedback), "hh_ppo": ("hh", hh)}
IN_FOUR_BITS = "policy.lora={rank: 8, bits: 4}"


@pytest.mark.parametrize(("name", "more"), [*((name, []) for name in CASES), ("gsm8k_grpo", [IN_FOUR_BITS])])
def test_it_runs(
    name: str, more: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, rows = CASES[name]
    (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (tmp_path / f"{name}.yaml").write_text((RECIPES / f"{name}.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["train", f"{name}.yaml", f"model={model}", *SHORT, *more, "--json"])
    out = capsys.readouterr().out
    assert end.value.code == 0, out
    told = json.loads(out)
    assert told["steps"] == (6 if name == "hh_ppo" else 2)
    final = Path(told["folder"]) / ("3-ppo/final" if name == "hh_ppo" else "final")
    assert AutoModelForCausalLM.from_pretrained(final).config.model_type == "qwen2"
