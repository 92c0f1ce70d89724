#!/bin/sh
# math-verify 0.9.0: the question's own expression passes for its answer.
#
# Seen on 29 November 2026, Python 3.11, Linux. `verify(gold, answer)` compares what the two come to. A gold answer 579 is therefore met by
# "123+456" and by "3*193", which nobody has worked out, and not by "580". With a trailing equals sign, "123+456=", it is not met. Evaluating
# is what the package says it does; the surprise is that a reward made of it alone pays in full for repeating the question of a sum.
#
# A reward should refuse an answer in which an operation is still to be carried out.
#
# Prints what it saw; exit code 0 while it is so, 1 when it has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2-extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2

cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

from math_verify import parse, verify

SEEN = {"579": True, "580": False, "123+456": True, "3*193": True, "123+456=": False}  # answer: does it pass, the gold answer being 579

print("math-verify", version("math-verify"))
found = {answer: verify(parse("579"), parse(answer)) for answer in SEEN}
for answer, passes in found.items():
    print(f"gold 579, answer {answer:8s} -> {passes}")
if found != SEEN:
    raise SystemExit(f"changed: this was seen before: {SEEN}")
PYTHON
"$folder/venv/bin/python" "$folder/see.py"
