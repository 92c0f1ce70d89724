"""A YAML file read strictly into frozen dataclasses; all problems are reported at once, each with its line.

    parse(path) ─► with_overrides(document, ["train.lr=3e-5"]) ─► build(kind, document)

YAML 1.2: `1e-6` is a number, `on` and `12:30` are strings. Nothing is coerced: a quoted number is a string, and a numeric field refuses it.
Lists are accepted as tuples, integers as floats. Fields annotated `Path` are looked up by `resolve_path`. A key is a tuple of strings, list
positions included: ("rewards", "0", "weight").

Left out: tags and dates (put them in quotes), several documents in a file, includes, variables, and fields that may be either of two
dataclasses.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from io import StringIO
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from ikusei.recipe.errors import Key, did_you_mean, problems_of, show
from ikusei.run import formats

T = TypeVar("T")
_reported: set[tuple[str, str]] = set()  # where, and which old name


class RecipeError(ValueError):
    """Everything that is wrong with a recipe, one line for each problem."""


@dataclass(frozen=True)
class Problem:
    """What is wrong at a key. `override` is the text of an override that could not be applied."""

    key: Key
    text: str
    override: str = ""


@dataclass(frozen=True)
class Document:
    """Plain data, the line or override that each key comes from, and the problems so far."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[Key, int]  # in the file, counted from 1; the empty key is always there
    overrides: Mapping[Key, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    text: str = ""  # as it was written

    def with_problems(self, problems: Iterable[Problem]) -> Document:
        return replace(self, problems=(*self.problems, *problems))

    def place(self, problem: Problem) -> tuple[float, str]:
        """A number to sort by, then where to look: `file:line`, and `override '…'`."""
        if problem.override:
            return math.inf, f"override {problem.override!r}"
        key = problem.key
        while key not in self.lines:
            if inside := self._overrides_within(key):
                return math.inf, f"override {inside[-1]!r}"
            key = key[:-1]
        also = self._overrides_within(key) if key == problem.key else []
        return self.lines[key], f"{self.path}:{self.lines[key]}" + "".join(f": override {text!r}" for text in also)

    def _overrides_within(self, key: Key) -> list[str]:
        return [text for other, text in self.overrides.items() if _within(other, key)]

    def raise_problems(self) -> None:
        """Raises RecipeError where anything is wrong."""
        problems = sorted((*self.place(each), ".".join(each.key), each.text) for each in self.problems)
        if problems:
            raise RecipeError("\n".join(": ".join(filter(None, words)) for _, *words in problems))


def parse(path: Path) -> Document:
    """The file as plain data. Raises RecipeError where it cannot be read or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = YAML().load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}; a recipe is a text file in UTF-8") from error
    except YAMLError as error:
        line = error.problem_mark.line + 1 if isinstance(error, MarkedYAMLError) and error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: {_reason(error)}") from error
    lines: dict[Key, int] = {(): 1}
    problems: list[Problem] = []
    data = {} if tree is None else _plain(tree, (), lines, problems)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}:1: a recipe is made of lines such as `seed: 1`, got {show(data)}")
    return _with_current_keys(Document(path, data, lines, problems=tuple(problems), text=text))


def document(data: Mapping[str, Any], name: str) -> Document:
    """A document from a mapping. In errors `name` stands where a file name would."""
    return _with_current_keys(Document(Path(name), plain(data), {(): 1}, text=dump_yaml(plain(data))))


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document after overrides such as `rewards.0.weight=2`: dots lead inside, the value is YAML."""
    for text in overrides:
        dotted, equals, written = text.partition("=")
        given = tuple(dotted.strip().split("."))
        key = formats.current(given)
        problems: list[Problem] = []
        try:
            if not equals or not all(key):
                raise ValueError("write key=value, for example train.lr=3e-5")
            data = _put(document.data, key, _plain(YAML().load(written), key, {}, problems))
        except YAMLError as error:
            document = document.with_problems([Problem((), f"the value is not YAML: {_reason(error)}", text)])
        except ValueError as error:
            document = document.with_problems([Problem((), str(error), text)])
        else:
            lines = {other: line for other, line in document.lines.items() if not _within(other, key)}
            older = {other: text for other, text in document.overrides.items() if not _within(other, key)}
            still = [each for each in document.problems if each.override or not _within(each.key, key)]
            changed = replace(document, data=data, lines=lines, overrides={**older, key: text}, problems=(*still, *problems))
            document = _with_current_keys(changed)
            if key != given:
                _report(f"override {text!r}", given, key, text)
    return document


def _with_current_keys(document: Document) -> Document:
    """The document with old keys renamed; each old key is reported once. The resolved recipe in a run folder is not reported: nobody wrote
    it by hand."""
    data, moves = formats.with_current_keys(document.data)
    by_hand = document.path.name != "recipe.yaml" or not document.path.with_name("run.json").exists()
    for move in moves:
        place = document.place(Problem(move.old, ""))[1]
        if move.clash:
            there = document.place(Problem(move.new, ""))[1]
            text = f"the old name of {'.'.join(move.new)}, which is given too ({there}); drop the old one"
            document = document.with_problems([Problem(move.old, text)])
            continue
        if by_hand:
            _report(place, move.old, move.new, str(document.path.resolve()))
        lines, overrides = (
            {formats.swapped(key, move.old, move.new): each for key, each in places.items()}
            for places in (document.lines, document.overrides)
        )
        problems = (replace(each, key=formats.swapped(each.key, move.old, move.new)) for each in document.problems)
        document = replace(document, lines=lines, overrides=overrides, problems=tuple(problems))
    return replace(document, data=data)


def _report(place: str, old: Key, new: Key, source: str) -> None:
    """On the standard error, once for each name and source."""
    was, now = (".".join(key[2:] if key[0] == "stages" else key) for key in (old, new))
    if (source, was) not in _reported:
        _reported.add((source, was))
        print(f"{place}: {was} is called {now} now; the old name is still read", file=sys.stderr)


def build(kind: type[T], document: Document) -> T:
    """The document as an instance of the dataclass `kind`. Raises RecipeError with every problem."""
    problems: list[Problem] = []
    data = _prepared(kind, document.data, (), document.path.parent, problems)
    try:
        # By way of JSON: there pydantic's strict mode takes a list for a tuple and a mapping for a dataclass.
        built = TypeAdapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        document.with_problems([*problems, *(Problem(key, text) for key, text in problems_of(error.errors(), data))]).raise_problems()
        raise
    document.with_problems(problems).raise_problems()
    return built


def resolve_path(given: str | Path, folder: Path) -> Path:
    """A path in a recipe: in the recipe's folder if it exists there, else in the working directory."""
    path = Path(given).expanduser()
    there = [place for place in (folder / path, path) if place.exists()]
    return there[0].resolve() if there else path


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as mappings, lists and texts, which `build` reads back to an equal value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.init}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML text, in the order given."""
    text = StringIO()
    YAML().dump(dict(data), text)
    return text.getvalue()


def _within(key: Key, outer: Key) -> bool:
    return key[: len(outer)] == outer


def _reason(error: YAMLError) -> str:
    texts = (error.context, error.problem) if isinstance(error, MarkedYAMLError) else (str(error),)
    return ": ".join(" ".join(each.split()) for each in texts if each)


def _plain(node: Any, key: Key, lines: dict[Key, int], problems: list[Problem]) -> Any:
    """The YAML reader's output as plain data; notes the line of each key, and values that a recipe cannot hold."""
    if isinstance(node, CommentedMap):
        for name in node:
            if name in (node.lc.data or {}):  # not so for what a merge (<<) brought in
                lines[*key, str(name)] = node.lc.data[name][0] + 1
            if not isinstance(name, str):
                problems.append(Problem((*key, str(name)), "a key must be a text; put it in quotes"))
        return {name: _plain(each, (*key, name), lines, problems) for name, each in node.items() if isinstance(name, str)}
    if isinstance(node, CommentedSeq):
        for position in range(len(node)):
            lines[*key, str(position)] = node.lc.data[position][0] + 1
        return [_plain(each, (*key, str(position)), lines, problems) for position, each in enumerate(node)]
    if isinstance(node, ScalarBoolean):  # a boolean with an anchor
        return bool(node)
    if node is None or (isinstance(node, (str, int, float)) and node == node):
        return node
    problems.append(Problem(key, f"dates, tags and .nan have no place in a recipe (a text goes in quotes), got {node}"))
    return None


def _put(data: Any, key: Key, value: Any) -> Any:
    """`data` with the value at `key`; mappings on the way are made where there are none."""
    if not key:
        return value
    if isinstance(data, list):
        if not (key[0].isdecimal() and int(key[0]) < len(data)):
            raise ValueError(f"no entry {key[0]!r} in a list of {len(data)}; entries count from 0")
        position = int(key[0])
        return [*data[:position], _put(data[position], key[1:], value), *data[position + 1 :]]
    if isinstance(data, dict) or data is None:
        before = data or {}
        return {**before, key[0]: _put(before.get(key[0]), key[1:], value)}
    raise ValueError(f"there is no {key[0]!r} inside {show(data)}, which is a single value")


def _prepared(kind: Any, value: Any, key: Key, folder: Path, problems: list[Problem]) -> Any:
    """The value without its unknown keys, which become problems, and with its paths looked up."""
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    inner = {get_origin(choice): get_args(choice) for choice in choices}
    if isinstance(value, dict):
        for choice in filter(is_dataclass, choices):
            return _known(choice, value, key, folder, problems)
        element = (inner.get(Mapping) or inner.get(dict) or (str, Any))[1]
        return {name: _prepared(element, each, (*key, name), folder, problems) for name, each in value.items()}
    if isinstance(value, list):
        declared = [each for each in inner.get(tuple) or inner.get(list) or () if each is not ...]
        elements = [declared[min(i, len(declared) - 1)] if declared else Any for i in range(len(value))]
        return [_prepared(elements[i], each, (*key, str(i)), folder, problems) for i, each in enumerate(value)]
    return str(resolve_path(value, folder)) if isinstance(value, str) and Path in choices else value


def _known(kind: Any, value: dict[str, Any], key: Key, folder: Path, problems: list[Problem]) -> dict[str, Any]:
    allowed = [each.name for each in fields(kind) if each.init]
    for name in value.keys() - allowed:
        text = f"unknown key{did_you_mean(name, allowed)}, got {show(value[name])}; allowed: {', '.join(allowed)}"
        problems.append(Problem((*key, name), text))
    kinds = get_type_hints(kind)
    return {name: _prepared(kinds[name], value[name], (*key, name), folder, problems) for name in value if name in allowed}
