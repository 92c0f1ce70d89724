"""Law 12: what a run exports, reloaded by transformers in a new process, has the same logits, and its chat template renders the same ids.

For each family of models: made from its configuration, trained and sampled by a run, with adapters, and some with all weights too; laws 1
and 3 train and sample all of them so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
import worlds
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Tokenizer

from ikusei.backends.local import LocalPolicy, export
from ikusei.forest import plant
from ikusei.models.adapter import adapters
from ikusei.models.make import MakeModel, make_model, make_tokenizer
from ikusei.recipe.build import build
from ikusei.recipe.schema import read_recipe
from ikusei.text.chat import ends_of, render
from ikusei.text.train_tokenizer import train_tokenizer
from ikusei.types import Example, Group, Prompt, Response, Sampling

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 96, "initializer_range": 0.2,
}  # fmt: skip
SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL,
    "gemma2": {**SMALL, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {**SMALL, **SLIDING, "query_pre_attn_scalar": 8},
    "mistral": {**SMALL, "sliding_window": 16},
    "phi": SMALL,
    "phi3": SMALL,
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 96},
    "smollm3": {**SMALL, "no_rope_layers": [1, 0]},
}
WHOLE = ("llama", "qwen2", "gemma3_text", "gpt2")  # a run each takes two seconds
ADAPTERS = {"lora": {"rank": 4}}
CONVERSATION = ({"role": "user", "content": "12+34="}, {"role": "assistant", "content": "46"}, {"role": "user", "content": "ねこは？"})
ASK = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
found = []
for folder in sys.argv[2:]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(json.loads(sys.argv[1]), add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    found.append((ids, logp.tolist(), sorted({str(p.dtype) for p in model.parameters()})))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, list[Any]]]:
    """The folder of each run, and what a new process says of its export."""
    world = tmp_path_factory.mktemp("families")
    (world / "calm.py").write_text("def calm(prompt, response, **columns):\n    return sum(map(ord, response)) % 7 / 7\n")
    qwens_own().save_pretrained(world / "tokenizer")
    AutoConfig.for_model("qwen2", **SMALL).save_pretrained(world / "tokenizer")
    runs = {}
    for family, config in FAMILIES.items():
        made = {"architecture": family, "config": config, **({"tokenizer": str(world / "tokenizer")} if family == "qwen2" else {})}
        for kind, policy in (("whole", {}), ("adapters", ADAPTERS)) if family in WHOLE else (("adapters", ADAPTERS),):
            recipe = {
                "model": made, "task": {"name": "arithmetic", "digits": 1}, "rewards": ["calm.py:calm"],
                "algorithm": {"name": "grpo", "kl_coef": 0.1}, "sampling": {"max_tokens": 8}, "policy": policy,
                "train": {"steps": 2, "prompts_per_step": 3, "num_responses": 4, "lr": 1e-2}, "eval": {"num_prompts": 0},
            }  # fmt: skip
            (world / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
            runs[family, kind] = world / f"{family} {kind}"
            assert tiny_runs.run_here(world / "recipe.yaml", runs[family, kind]).exit_code == 0
    asked = [sys.executable, "-c", ASK, json.dumps(CONVERSATION), *(str(folder / "final") for folder in runs.values())]
    told = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    return {key: (folder, said) for (key, folder), said in zip(runs.items(), told, strict=True)}


def qwens_own() -> Qwen2Tokenizer:
    """A tokenizer of Qwen2's class: transformers reads every one beside a Qwen2 as such."""
    learned = train_tokenizer([f"{a} + {b} = {a + b}\nねこはかわいい。" for a in range(30) for b in range(30)], "bpe", 400)
    model = json.loads(learned.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    special = {"eos_token": learned.eos_token, "pad_token": learned.pad_token, "unk_token": None}
    return Qwen2Tokenizer(model["vocab"], merges, chat_template=learned.chat_template, **special)


def test_a_tokenizer_that_would_be_read_as_another(tmp_path: Path) -> None:
    """It is told before anything is trained."""
    made = MakeModel("qwen2", config=SMALL)
    with pytest.raises(ValueError, match=r"reads every tokenizer as a Qwen2Tokenizer.*take another architecture, such as qwen3"):
        make_model(made, make_tokenizer(made), seed=0)


@pytest.mark.parametrize(("kind", "family"), [*(("whole", name) for name in WHOLE), *(("adapters", name) for name in FAMILIES)])
def test_a_new_process_says_the_same(kind: str, family: str, exports: dict[tuple[str, str], tuple[Path, list[Any]]]) -> None:
    """As the policy of the last checkpoint, adapters beside its weights, says here."""
    folder, (ids, logp, dtypes) = exports[family, kind]
    policy = build(read_recipe(folder / "recipe.yaml", [])).policy
    begun = logps(policy, ids)
    policy.load(folder / "checkpoint-2")
    assert (policy.version, bool(adapters(policy.causal.model)), dtypes) == (2, kind == "adapters", ["torch.float32"])
    assert not list((folder / "final").glob("adapter*"))
    assert list(render(policy.tokenizer, Example(CONVERSATION)).tokens) == ids
    there = torch.tensor([row[token] for row, token in zip(logp, ids[1:])])
    torch.testing.assert_close(logps(policy, ids), there, rtol=1e-5, atol=2e-5)
    assert (begun - there).abs().max() > 1e-3, "it has not learned, so the comparison is of nothing"


def logps(policy: LocalPolicy, ids: list[int]) -> torch.Tensor:
    answer = Response(tuple(ids[1:]), (True,) * (len(ids) - 1), "")
    return policy.forward(plant([Group(Prompt("", (ids[0],), ""), (answer,))])).logp_M


def test_every_end_token_ends_and_is_exported(tmp_path: Path) -> None:
    """A model whose configuration ends texts with tokens that its chat template does not know: those and the template's."""
    policy = worlds.make_talker()
    ends, of_model = ends_of(policy.tokenizer), (37, 41)
    assert not ends & {*of_model}
    policy.causal.model.generation_config.eos_token_id = list(of_model)
    (group,) = policy.snapshot().sample([render(policy.tokenizer, Example("1+1="))], 120, Sampling(max_tokens=60, temperature=2.0), seed=0)
    last = {response.tokens[-1] for response in group.responses if response.stop == "eos"}
    assert last == {*ends, *of_model}
    assert not any(token in last for response in group.responses for token in response.tokens[:-1])
    export(policy.causal.model, policy.tokenizer, tmp_path)
    written = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert written.eos_token_id == sorted(last)
    assert written.pad_token_id == policy.tokenizer.pad_token_id and written.pad_token_id not in last
