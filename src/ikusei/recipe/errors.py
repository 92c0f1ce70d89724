"""Translate pydantic's errors into the words of a recipe."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Key = tuple[str, ...]


def show(value: Any) -> str:
    """A value as a recipe would write it, on one short line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(given: Any, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where an allowed name is close, else an empty text."""
    close = difflib.get_close_matches(str(given), list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def problems_of(errors: Iterable[ErrorDetails], data: Any) -> list[tuple[Key, str]]:
    """(key, what is wrong there). The branches of a union are reported together."""
    texts: dict[Key, list[str]] = {}
    for error in errors:
        key: Key = ()
        there = data
        for part in error["loc"]:  # which also names the branches of unions: those are not in the data
            inside: dict[Any, Any] = there if isinstance(there, dict) else dict(enumerate(there)) if isinstance(there, list) else {}
            if part in inside:
                key, there = (*key, str(part)), inside[part]
        if error["type"] == "missing":
            texts[*key, str(error["loc"][-1])] = ["missing, and it has no default"]
        elif error["type"] == "value_error":  # from a __post_init__, which says itself what it got
            texts.setdefault(key, []).append(error["msg"].removeprefix("Value error, "))
        else:
            text = error["msg"].removeprefix("Input ")
            for theirs, ours in (("a valid array", "a list"), ("an object", "a mapping"), ("a valid integer", "a whole number")):
                text = text.replace(theirs, ours)
            texts.setdefault(key, []).append(f"{text}{_hint(error)}, got {show(error['input'])}")
    return [(key, "; or it ".join(each)) for key, each in texts.items()]


def _hint(error: ErrorDetails) -> str:
    """How to write what was probably meant."""
    given = error["input"]
    match error["type"]:
        case "float_type" | "int_type" if isinstance(given, str) and _is_number(given):
            return f" (drop the quotes: {given})"
        case "int_type" if isinstance(given, float) and given.is_integer():
            return f" (write {int(given)})"
        case "bool_type" if given in ("true", "on", "yes", "false", "off", "no"):
            return f" (write {'true' if given in ('true', 'on', 'yes') else 'false'})"
        case "string_type" if isinstance(given, (int, float)):
            return f" (put it in quotes: '{show(given)}')"
        case "tuple_type" if isinstance(given, (str, int, float)):
            return f" (write [{show(given)}])"
        case "literal_error":
            return did_you_mean(given, error.get("ctx", {})["expected"].split("'")[1::2])
        case _:
            return ""


def _is_number(text: str) -> bool:
    try:
        value = YAML().load(text)
    except YAMLError:
        return False
    return isinstance(value, (int, float)) and not isinstance(value, bool)
