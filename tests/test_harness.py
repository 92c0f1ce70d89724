"""The adapters of lm-evaluation-harness and Inspect: small tasks of our own, checked against the harness's own `hf` model and against
transformers.

The two packages bring more than eighty others and take a minute and a half of the processor to install, so `make install` leaves them out,
and these tests run where the extra `harness` is installed: pip install -c constraints.txt -e '.[harness]'.
"""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

MISSING = "{} is not installed; pip install -c constraints.txt -e '.[harness]'"
lm_eval = pytest.importorskip("lm_eval", reason=MISSING.format("lm_eval"))
inspect_ai = pytest.importorskip("inspect_ai", reason=MISSING.format("inspect_ai"))

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from ikusei.evaluation.inspect_ai import content_of, kind_of  # noqa: E402
from ikusei.evaluation.lm_eval import IkuseiLM, sampling_of  # noqa: E402
from ikusei.models.load import SEEDLING  # noqa: E402
from ikusei.types import Response, Sampling  # noqa: E402

ROOT = Path(__file__).parents[1]
SUMS = [(f"{a}+{b}=", str(a + b)) for a, b in ((3, 4), (12, 7), (40, 25), (8, 8), (31, 60), (2, 95))]
CHOICES = [{"q": f"Q{q}\nA", "choices": [a, "7", "cat", f"{a}0"], "label": 0, "a": a} for q, a in SUMS]
RAW = [
    {"q": "", "text": text} for text in ("ねこはかわいい。", "1+1=2 " * 30, "The cat sat on the mat. " * 60)
]  # the last fills two windows
TASKS: dict[str, dict[str, Any]] = {
    "chooses": {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "label", "metric": "acc"},
    "writes": {
        "output_type": "generate_until",
        "doc_to_target": "a",
        "metric": "exact_match",
        "generation_kwargs": {"until": ["</think>", "\n"]},
    },
    "reads": {"output_type": "loglikelihood_rolling", "doc_to_target": "{{text}}", "metric": "word_perplexity"},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> TaskManager:
    folder = tmp_path_factory.mktemp("tasks")
    for name, task in TASKS.items():
        rows = RAW if name == "reads" else CHOICES
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        data = {"data_files": {"test": str(folder / f"{name}.jsonl")}, "cache_dir": str(folder / "cache")}
        written = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": data,
            "test_split": "test",
            "doc_to_text": "{{q}}",
            "target_delimiter": "",
        }
        written |= {key: value for key, value in task.items() if key != "metric"} | {"metric_list": [{"metric": task["metric"]}]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(written), "utf-8")
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module")
def ours() -> IkuseiLM:
    return IkuseiLM("seedling")


@pytest.fixture(scope="module")
def theirs() -> Any:
    return get_model("hf")(pretrained=str(SEEDLING), device="cpu", dtype="float32")


def evaluated(model: Any, tasks: TaskManager, **how: Any) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(model=model, tasks=list(TASKS), task_manager=tasks, bootstrap_iters=0, **how)
    assert found is not None
    return found


@pytest.mark.parametrize("chat", [False, True])
def test_it_says_what_the_harness_own_model_says(ours: IkuseiLM, theirs: Any, tasks: TaskManager, chat: bool) -> None:
    one, other = (evaluated(model, tasks, apply_chat_template=chat, gen_kwargs="max_gen_toks=48") for model in (ours, theirs))
    for name, task in TASKS.items():
        assert one["results"][name][f"{task['metric']},none"] == pytest.approx(other["results"][name][f"{task['metric']},none"], rel=1e-4)
        for a, b in zip(one["samples"][name], other["samples"][name], strict=True):
            said = [[each[0] for each in sample["resps"]] for sample in (a, b)]
            if name == "writes":
                assert said[0] == said[1]
                continue
            logps = [[each if isinstance(each, float) else each[0] for each in row] for row in said]
            assert logps[0] == pytest.approx(logps[1], abs=1e-3)
            if name == "chooses":
                assert [each[1] for each in said[0]] == [each[1] for each in said[1]], "whether greedy decoding writes it"
    written = [sample["resps"][0][0] for sample in one["samples"]["writes"]]
    assert len(set(written)) > 3 and not any("\n" in text for text in written)
    if chat:
        assert 0 < one["results"]["chooses"]["acc,none"] <= 1
        assert any("+" in text for text in written) and not any("</think>" in text for text in written), "cut where the thought ends"


def test_greedy_words_are_those_of_generate(ours: IkuseiLM) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(SEEDLING), AutoTokenizer.from_pretrained(SEEDLING)
    asked = [ours.apply_chat_template([{"role": "user", "content": question}]) for question, _ in SUMS]
    given = [{"until": ["7"], "max_gen_toks": 40}, {"max_gen_toks": 40}, {"max_gen_toks": 5}]
    requests = [Instance("generate_until", {}, (text, kwargs), i) for i, text in enumerate(asked) for kwargs in given]
    found = ours.generate_until(requests)
    for i, text in enumerate(asked):
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        tokens = model.generate(**tokens, do_sample=False, max_new_tokens=40)[0, tokens["input_ids"].shape[1] :]
        whole, short = (tokenizer.decode(each, skip_special_tokens=True) for each in (tokens, tokens[:5]))
        assert found[3 * i : 3 * i + 3] == [whole.split("7")[0], whole, short]


def test_a_context_that_is_too_long_loses_its_beginning(ours: IkuseiLM, theirs: Any) -> None:
    long = "1+2=3 " * 100
    requests = [Instance("loglikelihood", {}, (long, end), 0) for end in ("3", "cat sat", long[:500])]
    assert [logp for logp, _ in ours.loglikelihood(requests)] == pytest.approx(
        [logp for logp, _ in theirs.loglikelihood(requests)], abs=1e-3
    )
    kwargs = {"max_gen_toks": 100, "until": ["\n"]}
    requests = [Instance("generate_until", {}, (long, kwargs), 0)]
    assert ours.generate_until(requests) == theirs.generate_until(requests)
    with pytest.raises(ValueError, match="max_gen_toks: 600, and the model's context holds 512; allowed: less"):
        ours.generate_until([Instance("generate_until", {}, ("1+1=", {"max_gen_toks": 600}), 0)])
    with pytest.raises(ValueError, match="a text of 600 tokens; the model's context holds 512"):
        ours.loglikelihood([Instance("loglikelihood", {}, ("1", long), 0)])


def test_generation_settings_of_the_harness() -> None:
    assert sampling_of({"until": ["a", ""], "max_gen_toks": 9}) == Sampling(top_k=1, max_tokens=9, stop=("a",))
    assert sampling_of({"do_sample": False, "temperature": 0.7}) == Sampling(top_k=1, max_tokens=256)
    assert sampling_of({"temperature": 0.7, "top_p": 0.9}) == Sampling(temperature=0.7, top_p=0.9, max_tokens=256)
    with pytest.raises(ValueError, match="model_args: got dtype; allowed: pretrained, num_slots, seed"):
        IkuseiLM("seedling", device="cpu", batch_size=1, dtype="float16")
    with pytest.raises(ValueError, match="got num_beams; allowed: until"):
        sampling_of({"num_beams": 4})


def asked_of_inspect(tmp_path: Path, **config: Any) -> Any:
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig
    from inspect_ai.scorer import match

    samples = [Sample(input=question, target=answer) for question, answer in SUMS]
    task = inspect_ai.Task(dataset=MemoryDataset(samples), scorer=match(location="exact"), config=GenerateConfig(**config))
    (log,) = inspect_ai.eval(task, model="ikusei/seedling", log_dir=str(tmp_path), display="none", epochs=config.pop("epochs", 1))
    assert log.status == "success", log.error
    return log


def test_inspect(ours: IkuseiLM, tmp_path: Path) -> None:
    """Greedy answers are those of generate, as checked above; thoughts are reasoning, and the accuracy is that of the answers."""
    asked = [ours.apply_chat_template([{"role": "user", "content": question}]) for question, _ in SUMS]
    whole = ours.generate_until([Instance("generate_until", {}, (text, {"max_gen_toks": 60}), 0) for text in asked])
    log = asked_of_inspect(tmp_path, temperature=0, max_tokens=60)
    answers = [sample.output.completion for sample in sorted(log.samples, key=lambda sample: sample.id)]
    expected = [content_of(Response((), (), text), ()) for text in whole]
    assert answers == [text if isinstance(text, str) else text[1].text for text in expected]
    right = sum(answer == gold for answer, (_, gold) in zip(answers, SUMS, strict=True))
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(right / len(SUMS))


def test_inspect_stops_and_draws(tmp_path: Path) -> None:
    log = asked_of_inspect(tmp_path, temperature=0, max_tokens=3)
    assert {sample.output.choices[0].stop_reason for sample in log.samples} == {"max_tokens"}
    log = asked_of_inspect(tmp_path, temperature=0, stop_seqs=["+"], max_tokens=60)
    assert all("+" not in str(sample.output.message.content) for sample in log.samples)
    log = asked_of_inspect(tmp_path, temperature=2.0, num_choices=3, max_tokens=20)
    texts = {str(choice.message.content) for sample in log.samples for choice in sample.output.choices}
    assert all(len(sample.output.choices) == 3 for sample in log.samples) and len(texts) > 12


def test_what_inspect_asks_and_is_not_honoured_is_refused() -> None:
    from inspect_ai.model import GenerateConfig

    how, num, seed = kind_of(GenerateConfig(temperature=0.5, top_p=0.9, max_tokens=7, stop_seqs=["a"], seed=3))
    assert (how, num, seed) == (Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("a",)), 1, 3)
    with pytest.raises(ValueError, match="frequency_penalty, logprobs: not honoured here; allowed: temperature"):
        kind_of(GenerateConfig(frequency_penalty=0.5, logprobs=True))
    cut = content_of(Response((), (), "<think>1+1</think>2 or b a"), ["a", "or"])
    assert [cut[0].reasoning, cut[1].text] == ["1+1", "2"]


def test_inspect_finds_it_by_its_entry_point() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["inspect_ai"]
    assert list(declared) == ["ikusei"] and EntryPoint("ikusei", declared["ikusei"], "inspect_ai").load().__name__ == declared["ikusei"]
    assert inspect_ai.model.get_model("ikusei/seedling").api.sampler.causal.context == 512
