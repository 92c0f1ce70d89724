"""The command line. Each command reads its arguments, calls one function and prints what it returns.

main.py         the program and its exit codes
common.py       what commands share
train.py        new, check, train, runs         evaluate.py     eval, compare
chat.py         sample, chat, score             scale.py        scale
reward.py       reward lint, test, replay       lens.py         lens
reproduce.py    reproduce
"""
