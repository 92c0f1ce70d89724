"""What the commands share: the two consoles, and the words for JSON.

A command is a function in a file of its group, thin: it reads its words, calls one function and prints what that returns. Its exit code is
what it returns, its help its docstring, and what is heavy it imports itself.
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

out, err = Console(), Console(stderr=True)

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print plain JSON to the standard output.")]
