"""Rewards that need no model: a number for one answer, closed against the cheap ways of earning it.

Each is called as `reward(prompt, response, **columns)`, where the columns are those of the data row. A recipe names one by its bare name.
They are found by path and imported only where they are used, since `math` loads sympy.

Left out, for later: JSON schema.
"""

from __future__ import annotations

BUILT_IN = {
    "exact": "ikusei.rewards.exact:exact",
    "math": "ikusei.rewards.math:math",
    "think_format": "ikusei.rewards.think_format:ThinkFormat",
    "length": "ikusei.rewards.length:Length",
    "votes": "ikusei.rewards.votes:Votes",
    "code": "ikusei.rewards.code:Code",
}
EXECUTE = frozenset({"code"})  # run what a model has written
