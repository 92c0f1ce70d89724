"""What the commands share: the two consoles, and the option --json.

A command is a thin function in the file of its group: it reads its arguments, calls one function and prints what that returns. It returns
its exit code; its help is its docstring; heavy modules it imports itself.
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

out, err = Console(), Console(stderr=True)

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print plain JSON to the standard output.")]
