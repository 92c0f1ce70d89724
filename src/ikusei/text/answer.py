"""Splits a response into thought and answer. Every reward and every metric of thoughts uses this one function.

Left out: thoughts marked by other tags than `<think>`.
"""

from __future__ import annotations


def split_thought(text: str) -> tuple[str | None, str]:
    """(thought, answer) of a response, both stripped.

        <think>3+4</think>7                       ("3+4", "7")
        7                                         (None, "7")       no thought, which differs from an empty one
        3+4</think>7                              ("3+4", "7")      the prompt had opened the thought
        <think>3+4                                ("3+4", "")       never closed: no answer
        <think>3+4</think>So <answer>7</answer>.  ("3+4", "7")

    The answer is the text after the last `</think>`, or the content of the last `<answer>…</answer>` in it.
    """
    before, closed, rest = text.rpartition("</think>")
    head, opened, inside = (before if closed else text).partition("<think>")
    if not closed:
        return (inside.strip(), "") if opened else (None, _tagged(text))
    return (inside if opened else head).strip(), _tagged(rest)


def _tagged(text: str) -> str:
    before, closed, _ = text.rpartition("</answer>")
    _, opened, inside = before.rpartition("<answer>")
    return (inside if closed and opened else text).strip()
