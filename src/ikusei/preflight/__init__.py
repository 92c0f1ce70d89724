"""Before a run: is the recipe right, will the model learn, can its rewards be cheated, and what would help?

check.py            `ikusei check`: everything below, as one record
facts.py            the lines that it prints
readiness.py        sample the starting model: is there a learning signal?
preference_data.py  length bias and agreement of preference pairs
advice.py           `--write`: the files that the verdict recommends
reward_tools.py     `ikusei reward`: lint, test and replay
reward_lint.py      attack a reward, and search for answers that cheat it
reward_attacks.py   the catalogue of attacks
"""
