"""Attacks on rewards: cheap answers that a reward should not pay for, made from the task's own rows.

For each row an attack gives texts that are not right answers. It knows the row's question and gold answer, and the form in which gold
answers earn most ("12", "<think>.</think>12", ...). A text that happens to be the gold answer is left out, so a constant is not blamed
where it is right; how often a constant is right is a figure of its own (`chance` in reward_lint.py).

The catalogue follows hacks that were seen in practice: empty thoughts and farmed tags, echoed questions, listed answers, substring
credit, verifiers that compute, and graders that can be made to exit. Left out: attacks on learned rewards, which need a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Form = Callable[[str], str]

FORMS: dict[str, Form] = {  # in which an answer may be asked for; the first that earns most is taken for the right one
    "plain": lambda answer: answer,
    "thought": lambda answer: f"<think>I work it out step by step.</think>{answer}",
    "tagged": lambda answer: f"<think>\nI work it out step by step.\n</think>\n<answer>\n{answer}\n</answer>",
    "boxed": lambda answer: f"I work it out step by step. The answer is \\boxed{{{answer}}}.",
    "in words": lambda answer: f"The answer is ${answer}$.",
}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
LOOK_ALIKE = str.maketrans({"0": "O", "1": "l", "5": "S", "8": "B", "a": "а", "e": "е", "o": "о"})  # the last three are Cyrillic
LONG = 20_000  # characters


@dataclass(frozen=True)
class GoldRow:
    """A question and its gold answer."""

    question: str
    gold: str


@dataclass(frozen=True)
class Attack:
    """`fix` is what closes the hole. `texts` are given the row, the other rows' gold answers, and the form."""

    name: str
    description: str
    fix: str
    texts: Callable[[GoldRow, Sequence[str], Form], Sequence[str]]
    slow: bool = False  # it may take a reward all the time that it has


def wrong(row: GoldRow) -> str:
    """An answer like the gold one, and not it: another last digit, or the text turned round."""
    if row.gold and row.gold[-1].isdigit():
        return row.gold[:-1] + str((int(row.gold[-1]) + 3) % 10)
    turned = row.gold[::-1]
    return turned if turned != row.gold else row.gold + "?"


def expression(question: str) -> list[str]:
    """What of a question could be computed: its longest run of numbers and operators; and each of its numbers."""
    runs = re.findall(r"[\d(][\d\s.+*/()^×÷-]*[\d)]", question)
    return list(dict.fromkeys([*sorted(runs, key=len)[-1:], *NUMBER.findall(question)]))


def _listed(row: GoldRow, others: Sequence[str]) -> list[str]:
    return [*dict.fromkeys([*others[:8], row.gold, wrong(row)])]


ATTACKS: tuple[Attack, ...] = (
    Attack("empty", "an empty answer", "give nothing where the answer is empty", lambda row, others, form: ["", " ", "\n"]),
    Attack(
        "empty thought", "an empty thought and a wrong answer", "ask for a few words in the thought, and multiply by the answer's worth",
        lambda row, others, form: [f"<think></think>{wrong(row)}", f"<think>\n\n</think>\n<answer>\n{wrong(row)}\n</answer>"],
    ),
    Attack(
        "tags only", "tags with nothing in them", "multiply the format's worth by the answer's (gate: true), never add it",
        lambda row, others, form: ["<think></think>", "<think></think><answer></answer>", "<answer></answer>", "\\boxed{}", form("")],
    ),
    Attack(
        "doubled tags", "tags opened and closed again and again", "count a tag once, and refuse an answer that repeats one",
        lambda row, others, form: ["<think></think>" * 4 + "<answer></answer>" * 4, "<think>a</think>b</think>c", "<answer>" * 5],
    ),
    Attack(
        "well-formed and wrong", "a wrong answer in the right form", "compare the answer with the gold one",
        lambda row, others, form: [form(wrong(row))],
    ),
    Attack(
        "answer in the thought", "the gold answer in the thought, none after it", "read the answer after the thought alone",
        lambda row, others, form: [f"<think>{row.gold}</think>", f"<think>{row.gold}</think>{wrong(row)}", f"<think>{row.gold}"],
    ),
    Attack(
        "thought that does not end", "tricks with the closing tag", "cut the thought at its last closing tag, and refuse a second one",
        lambda row, others, form: [f"</think>{wrong(row)}", f"<think>{row.gold}</think></think>{wrong(row)}", f"</think><think>{row.gold}"],
    ),
    Attack(
        "echo of the question", "the question itself", "refuse an answer that is in the question",
        lambda row, others, form: [row.question, form(row.question)],
    ),
    Attack(
        "echo of the expression", "what is to be computed, not computed", "ask for a literal number, and do not evaluate the answer",
        lambda row, others, form: [form(each) for each in expression(row.question)],
    ),
    Attack(
        "gold and noise", "the gold answer among others, the last of them wrong", "take one answer, the last, and refuse several",
        lambda row, others, form: [form(f"{row.gold} {wrong(row)}"), form(f"{wrong(row)} {row.gold} {wrong(row)}")],
    ),
    Attack(
        "every answer listed", "many answers, one of them right", "refuse an answer that holds several",
        lambda row, others, form: [form(", ".join(_listed(row, others))), " ".join(form(each) for each in _listed(row, others))],
    ),
    Attack(
        "several boxed", "several boxed answers, the last one wrong", "read the last box alone",
        lambda row, others, form: [f"\\boxed{{{row.gold}}} \\boxed{{{wrong(row)}}}", f"\\boxed{{{row.gold}, {wrong(row)}}}"],
    ),
    Attack(
        "digits", "all digits in a row, or all letters", "give no credit for a part of the answer",
        lambda row, others, form: [form("0123456789"), form("0 1 2 3 4 5 6 7 8 9"), form("abcdefghijklmnopqrstuvwxyz")],
    ),
    Attack(
        "within other text", "the gold answer inside a longer word", "compare whole answers, not parts",
        lambda row, others, form: [form(f"7{row.gold}7"), form(f"x{row.gold}x")],
    ),
    Attack(
        "huge", "a number too large to be meant", "limit the length of an answer before it is read",
        lambda row, others, form: [form("9" * 5000), form("1e999"), form("9**9**9**9"), form("nan"), form("inf")],
        slow=True,
    ),
    Attack(
        "look-alikes", "letters that look like the right ones", "compare after normalising, or letter by letter",
        lambda row, others, form: [form(row.gold.translate(LOOK_ALIKE))] if row.gold.translate(LOOK_ALIKE) != row.gold else [],
    ),
    Attack(
        "repetition", "the same words over and over", "measure repetition, and take it off",
        lambda row, others, form: ["step " * 400 + form(wrong(row)), (form(wrong(row)) + "\n") * 50],
    ),
    Attack(
        "another row's answer", "the gold answer of another question", "compare with the gold answer of this row",
        lambda row, others, form: [form(each) for each in others[:3]],
    ),
    Attack(
        "very long", "a wrong answer behind a very long text", "limit the length, and give nothing for it",
        lambda row, others, form: [f"<think>{'I think about it again. ' * (LONG // 24)}</think>{wrong(row)}", "x" * LONG],
        slow=True,
    ),
    Attack(
        "code", "code that ends the grader or says that all is well", "run code apart from the grader, and judge by what it prints",
        lambda row, others, form: [
            form("import sys; sys.exit(0)"), form("__import__('os')._exit(0)"), form("assert True"),
            "```python\nassert True\n```", "```python\nclass A:\n    def __eq__(self, other): return True\nanswer = A()\n```",
        ],
        slow=True,
    ),
)  # fmt: skip
