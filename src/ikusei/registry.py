"""Registries by file name: algorithms, rewards and tasks, and the folders of the seedling and the recipes.

SEEDLING and RECIPES are at the top of a clone, and in ikusei/data of a wheel. The files of a package are parsed, not imported, so that help
texts and error messages can list all of them without loading torch or sympy.

    ALGORITHMS = Registry("ikusei.algos", is_algorithm)           a new file is registered by its name alone
    ALGORITHMS["grpo"]                                            "ikusei.algos.grpo:GRPO"
    BUILT_IN.constant("code", "executes", False)                  True: an assignment in the body of the class
    ALGORITHMS.named_values()                                     {"dapo": {"name": "grpo", "clip_high": 0.28, ...}, ...}
"""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PLACE = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parents[1]
SEEDLING, RECIPES = _PLACE / "seedling", _PLACE / "recipes"
Definition = ast.ClassDef | ast.FunctionDef


class Registry(Mapping[str, str]):
    """Maps file names to paths `package.module:Name`.

    `is_one(file, definition)` decides for each public class and function at a file's top level. A file without one is left out. Raises
    ValueError for a file with several.
    """

    def __init__(self, package: str, is_one: Callable[[str, Definition], bool]) -> None:
        self.package, self.is_one = package, is_one
        self.read: dict[str, tuple[ast.Module, Definition] | None] = {}

    def __getitem__(self, name: str) -> str:
        return f"{self.package}.{name}:{self._definition(name)[1].name}"

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._parsed(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def constant(self, name: str, constant: str, default: Any) -> Any:
        """The literal assigned to `constant` in the class body; the default where there is none, and for a function."""
        assigned = _assigned(self._definition(name)[1].body, constant)
        return default if assigned is None else ast.literal_eval(assigned)

    def named_values(self) -> dict[str, dict[str, Any]]:
        """The named values of all files, such as `VALUES = {"dapo": GRPO(clip_high=0.28)}`: the file's name and the keyword arguments."""
        values: dict[str, dict[str, Any]] = {}
        for name in self:
            table = _assigned(self._definition(name)[0].body, "VALUES")
            for key, value in zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ():
                assert isinstance(key, ast.Constant) and isinstance(value, ast.Call) and not value.args, f"{name}: VALUES takes keywords"
                values[str(key.value)] = {"name": name} | {str(each.arg): ast.literal_eval(each.value) for each in value.keywords}
        return values

    @cached_property
    def _names(self) -> list[str]:
        return [each.name for each in pkgutil.iter_modules(sys.modules[self.package].__path__) if each.name in self]

    def _definition(self, name: str) -> tuple[ast.Module, Definition]:
        parsed = self._parsed(name)
        if parsed is None:
            raise KeyError(name)
        return parsed

    def _parsed(self, name: str) -> tuple[ast.Module, Definition] | None:
        """The parsed file and its definition; None where there is no such file, or it defines none."""
        if name not in self.read:
            spec = importlib.util.find_spec(f"{self.package}.{name}") if name.isidentifier() else None
            self.read[name] = None if spec is None or spec.origin is None else self._defined(name, Path(spec.origin))
        return self.read[name]

    def _defined(self, name: str, file: Path) -> tuple[ast.Module, Definition] | None:
        module = ast.parse(file.read_text(encoding="utf-8"), str(file))
        public = [node for node in module.body if isinstance(node, Definition) and not node.name.startswith("_")]
        ones = [node for node in public if self.is_one(name, node)]
        if len(ones) > 1:
            raise ValueError(
                f"{file}: defines {', '.join(node.name for node in ones)}; allowed: one in a file; give each a file of its own"
            )
        return (module, ones[0]) if ones else None


def methods(node: Definition) -> frozenset[str]:
    """The names of a class's own methods; of a function none."""
    return (
        frozenset(each.name for each in node.body if isinstance(each, ast.FunctionDef)) if isinstance(node, ast.ClassDef) else frozenset()
    )


def _assigned(body: Iterable[ast.stmt], name: str) -> ast.expr | None:
    """The expression that a module or class assigns to a name."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return node.value
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return node.value
    return None
