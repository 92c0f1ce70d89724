"""The figures of an evaluation. A figure is one record (`Figure`): its name, how it is computed, and how every page and line shows it.

    answers     of sampled answers that rewards have judged: pass@k, maj@k, greedy, reward, ...
    rows        of held-out rows of data: bits per byte, accuracy of a reward model, gaps of preference data, ...

To add one, write its record into the list of the file it belongs to; nothing else names it. A figure whose name is in no list, such as a
metric of a user's own algorithm, is shown under its name.
"""
