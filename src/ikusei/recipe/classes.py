"""Find the classes that a recipe names: ours by name, a user's own from a file or a package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError

from ikusei.recipe.reader import did_you_mean, resolve_path, show
from ikusei.types import content_id

FROM_FILE = "ikusei_recipe_file_"  # begins the module name of a user's file


def own_class(path: str, folder: Path) -> type:
    """A user's own class, from `my_file.py:Class` or `package.module:Class`. Raises ValueError where it cannot be imported, or a recipe
    cannot fill its fields."""
    place, _, name = path.rpartition(":")
    file = resolve_path(place, folder)
    try:
        module = _module_of(file) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:  # a user's file may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        at = f" at {file}:{lines[-1]}" if lines else ""
        raise ValueError(f"{show(path)} cannot be imported: {type(error).__name__}{at}: {error}") from error
    classes = {key: each for key, each in vars(module).items() if isinstance(each, type) and is_dataclass(each)}
    if name not in classes:
        own = [key for key, each in classes.items() if each.__module__ == module.__name__]
        raise ValueError(f"no dataclass {name!r} in {place}{did_you_mean(name, own)}; it has: {', '.join(own) or 'none'}")
    if "name" in [each.name for each in fields(classes[name])]:
        raise ValueError(f"{name} has a field called name, which a recipe cannot fill: there `name` says the class; call it otherwise")
    try:
        get_type_hints(classes[name])
        TypeAdapter(classes[name])
    except (NameError, PydanticSchemaGenerationError) as error:
        allowed = "allowed: numbers, texts, booleans, paths, Literal, dataclasses, tuples and mappings of them, all imported at the top"
        raise ValueError(f"{name} has a field that a recipe cannot fill: {str(error).partition('. ')[0]}; {allowed}") from error
    return classes[name]


def _module_of(file: Path) -> ModuleType:
    """The module in a file, imported once for each content: a recipe read twice gives equal values, an edited file new ones."""
    name = FROM_FILE + content_id(str(file), file.read_text(encoding="utf-8"))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec and spec.loader, "the name of a Python file ends in .py"
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))  # its neighbours can be imported, as when it is run as a script
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def name_of(kind: type, registry: Mapping[str, str]) -> str:
    """The name by which a recipe would look this class up."""
    if kind.__module__.startswith(FROM_FILE):
        return f"{sys.modules[kind.__module__].__file__}:{kind.__name__}"
    path = f"{kind.__module__}:{kind.__name__}"
    return {known: name for name, known in registry.items()}.get(path, path)
