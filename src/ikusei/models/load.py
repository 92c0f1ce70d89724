"""Load a model and its tokenizer from a folder or a hub id. `seedling` is the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ikusei.models.adapter import TRAINED_IN, four_bits
from ikusei.models.body import config_value
from ikusei.models.heads import fresh_score
from ikusei.registry import SEEDLING


def resolve(name: str) -> str:
    """The folder or hub id behind a name. Raises ValueError where a path is meant and nothing is there."""
    if name == "seedling":
        if not (SEEDLING / "config.json").exists():
            raise ValueError(f"model 'seedling': {SEEDLING} has no config.json; install ikusei anew, or clone the whole repository")
        return str(SEEDLING)
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").exists():
        inside = sorted(p.parent.name for p in folder.glob("*/config.json"))
        hint = f"did you mean {name}/{inside[-1]}" if inside else "give the folder that save_pretrained wrote"
        raise ValueError(f"model {name!r}: the folder has no config.json; {hint}")
    meant_as_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or (folder.parent.name and folder.parent.is_dir())
    if not folder.is_dir() and meant_as_path:
        raise ValueError(f"model {name!r}: no such folder; allowed: a folder with config.json, a hub id such as org/name, or seedling")
    return str(folder) if folder.is_dir() else name


def load_model(name: str, bits: int | None = None) -> PreTrainedModel:
    """The weights of a language model in fp32, or its matrices in 4 bits. Raises ValueError with the reason where it cannot be loaded."""
    check_kind(name, reward=False)
    return _loaded(name, AutoModelForCausalLM, bits)


def load_reward_model(name: str, seed: int | None = None, bits: int | None = None) -> PreTrainedModel:
    """A classifier of one label, as `load_model`. With a `seed`, a language model serves too: its layers get a head that is drawn from the
    seed."""
    if seed is None:
        check_kind(name, reward=True)
    if is_reward_model(name):
        return _loaded(name, AutoModelForSequenceClassification, bits)
    assert seed is not None, "a language model was refused above"
    logging.set_verbosity_error()  # that the head is new is the point
    model = _loaded(name, AutoModelForSequenceClassification, bits, num_labels=1)
    fresh_score(model, seed)
    return model


def check_kind(name: str, reward: bool) -> None:
    """Raises ValueError where a model is a reward model and a language model is wanted, or the other way round."""
    if is_reward_model(name) and not reward:
        raise ValueError(f"model {name!r}: it is a reward model, which writes nothing; give a language model, and it as a reward")
    if reward and not is_reward_model(name):
        problem = "it is no reward model (a classifier of one label); train one from a language model with algorithm: bradley_terry"
        raise ValueError(f"model {name!r}: {problem}")


def is_reward_model(name: str) -> bool:
    """True where the model is, by its configuration, a classifier of one label."""
    path = resolve(name)
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError):  # reported when it is loaded
        return False
    return any(each.endswith("ForSequenceClassification") for each in config.architectures or ()) and config.num_labels == 1


def context_named(name: str) -> int:
    """How many tokens the model behind a name holds, by its configuration alone. Raises ValueError where that cannot be read."""
    try:
        return config_value(AutoConfig.from_pretrained(resolve(name)), "max_position_embeddings", 1 << 30)
    except OSError as error:
        raise ValueError(f"model {name!r}: {_first_line(error)}; give a folder in Hugging Face layout, a hub id, or seedling") from error


def _loaded(name: str, kind: Any, bits: int | None = None, **options: Any) -> PreTrainedModel:
    path = resolve(name)
    if bits is not None:
        _refuse_twice(name)
        options |= {"quantization_config": four_bits(), "device_map": {"": device_here()}}
    if Path(path).is_dir():  # a download keeps its progress bar
        logging.disable_progress_bar()
    try:
        model = kind.from_pretrained(path, dtype=torch.float32, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"model {name!r}: {_first_line(error)}; give a folder in Hugging Face layout, a hub id, or seedling") from error
    return model if bits is not None else to_device(model)


def _refuse_twice(name: str) -> None:
    try:
        config = AutoConfig.from_pretrained(resolve(name)).to_dict()
    except (OSError, ValueError):  # reported when it is loaded
        return
    if TRAINED_IN in config:
        raise ValueError(
            f"policy.lora.bits: {name} was trained by adapters beside weights in {config[TRAINED_IN]} bits, and rounding it again would "
            "lose what they learned; leave bits out here, or train all in one stage"
        )


def device_here() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(model: PreTrainedModel) -> PreTrainedModel:
    return model.to(device_here())  # pyright: ignore[reportArgumentType]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer that lies with the model. Raises ValueError where there is none."""
    path = resolve(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"model {name!r}: it has no tokenizer that can be read ({_first_line(error)}); put tokenizer.json and tokenizer_config.json "
            "beside its config.json (tokenizer.save_pretrained)"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"model {name!r}: its tokenizer names no end token, so answers cannot end; set eos_token in tokenizer_config.json")
    return tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
