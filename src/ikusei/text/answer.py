"""Where the thought ends and the answer begins. Every reward and every statistic about thoughts reads an answer by this one function.

Left out: thoughts marked by other tags than `<think>`.
"""

from __future__ import annotations


def split_thought(text: str) -> tuple[str | None, str]:
    """(thought, answer) of a response, both without the white space around them.

        <think>3+4</think>7                       ("3+4", "7")
        7                                         (None, "7")       no thought at all, which is not an empty one
        3+4</think>7                              ("3+4", "7")      the prompt had opened the thought
        <think>3+4                                ("3+4", "")       never closed: whatever stands in a thought is no answer
        <think>3+4</think>So <answer>7</answer>.  ("3+4", "7")

    The answer follows the last `</think>`; where it holds `<answer>…</answer>`, it is what stands inside the last of them.
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
