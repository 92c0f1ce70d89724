"""A model of ours in lm-evaluation-harness, under the name `ikusei`. The harness has no entry points, so its own command is run from here:

    python -m ikusei.evaluation.lm_eval run --model ikusei --model_args pretrained=runs/x --tasks arc_easy

    log-likelihoods   the choices of one question are the leaves of one tree, so the question is computed once
    generation        all requests of one kind go to the sampler together; without do_sample or a temperature the likeliest word is taken

A context that is too long loses its beginning, as in the harness's own `hf`. `--batch_size` and `--device` say nothing here: the work is
cut by tokens, and a GPU is taken where there is one. Left out: several processes, the harness's cache of single answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

try:
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    library = (error.name or "lm_eval").partition(".")[0]
    text = f"lm_eval: it needs {library}, which is not installed; pip install 'ikusei[harness]'"
    raise (SystemExit if __name__ == "__main__" else ImportError)(text) from error

from ikusei.loops.order import in_order
from ikusei.run.find import find_model
from ikusei.samplers.load import load_sampler
from ikusei.text.chat import separator
from ikusei.text.conversation import end_of_text
from ikusei.types import Prompt, Sampling, content_id

MAX_TOKENS = 256  # of an answer where the task names no limit, as in the harness
UNUSED = frozenset({"batch_size", "max_batch_size", "device"})  # which the command passes always
HONOURED = "until, max_gen_toks, do_sample, temperature, top_k, top_p, min_p"


@register_model("ikusei")
class IkuseiLM(TemplateLM):
    """`pretrained` is a folder, a run, a hub id or seedling (None: the newest run)."""

    def __init__(self, pretrained: str | None = None, num_slots: int = 64, seed: int = 0, **unused: Any) -> None:
        if wrong := sorted(unused.keys() - UNUSED):
            raise ValueError(f"model_args: got {', '.join(wrong)}; allowed: pretrained, num_slots, seed")
        super().__init__()
        self.name, self.seed = find_model(pretrained), seed
        self.sampler = load_sampler(self.name, num_slots)
        self.tokenizer = self.sampler.tokenizer
        self.max_length = self.sampler.context

    @property
    def eot_token_id(self) -> int:
        return end_of_text(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        return separator(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        return self.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        apply, goes_on = self.tokenizer.apply_chat_template, not add_generation_prompt  # goes on with an answer that has begun
        return str(apply(chat_history, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """A text that brings its begin token, as one by a chat template does, gets no second one."""
        begun = string.startswith(str(self.tokenizer.decode([self.prefix_token_id])))
        return self.tokenizer.encode(string, add_special_tokens=not begun if add_special_tokens is None else add_special_tokens)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """(log P, whether it is what greedy decoding writes) of each."""
        return self.sampler.score_tokens([(context, tokens) for _, context, tokens in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log P of whole texts, each after the begin token; of one longer than the context in windows that read as much as they can."""
        windows: list[Any] = []
        owner: list[int] = []
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                owner.append(index)
        totals = [0.0] * len(requests)
        for index, (logp, _) in zip(owner, self._loglikelihood_tokens(windows), strict=True):
            totals[index] += logp
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        kinds: dict[Sampling, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            kinds[sampling_of(request.args[1])].append(i)
        answers = [""] * len(requests)
        for sampling, indices in kinds.items():
            prompts = [self._prompt(requests[i].args[0], sampling) for i in indices]
            groups = in_order(prompts, list(self.sampler.sample(prompts, 1, sampling, self.seed)))
            for i, group in zip(indices, groups, strict=True):
                answers[i] = postprocess_generated_text(group.responses[0].text, list(sampling.stop), None)
        return answers

    def _prompt(self, text: str, sampling: Sampling) -> Prompt:
        num, most = sampling.max_tokens, self.max_length
        if num >= most:
            raise ValueError(f"max_gen_toks: {num}, and the model's context holds {most}; allowed: less; set it by --gen_kwargs")
        return Prompt(content_id(text), tuple(self.tok_encode(text)[num - most :]), text)


def sampling_of(given: dict[str, Any]) -> Sampling:
    """From a task's generation_kwargs. Raises ValueError for one that is not honoured."""
    asked = dict(normalize_gen_kwargs(given, MAX_TOKENS))
    until, max_tokens, temperature = asked.pop("until"), asked.pop("max_gen_toks"), asked.pop("temperature", 1.0)
    drawn = asked.pop("do_sample")
    cut = {name: asked.pop(name) for name in ("top_k", "top_p", "min_p") if name in asked}
    if asked:
        raise ValueError(f"generation_kwargs: got {', '.join(asked)}; allowed: {HONOURED}")
    how: dict[str, Any] = {"temperature": temperature, **cut} if drawn and temperature > 0 else {"top_k": 1}
    return Sampling(max_tokens=max_tokens, stop=tuple(stop for stop in until if stop), **how)


if __name__ == "__main__":
    cli_evaluate()
