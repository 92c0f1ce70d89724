"""The first import of torch and transformers without the garbage collector: it would look through their half a million objects, which
all stay, again and again, a sixth of the processor's time until a run begins."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """To import within. What was made is not looked through later either; where torch is loaded already, nothing is different."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
