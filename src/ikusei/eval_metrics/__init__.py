"""The figures of an evaluation. A figure is one record (`Figure`): its name, how it is computed, and how pages and lines show it.

    metric.py       the record, and how a list of figures is computed and looked up
    answers.py      figures of sampled answers that rewards have scored: pass@k, maj@k, greedy, reward, ...
    rows.py         figures of held-out rows of data: bits per byte, accuracy of a reward model, log-prob gaps, ...
    choosing.py     choosing one of n answers, and how often that is right
    format.py       numbers and intervals as text

To add a figure, write its record into the list of answers.py or rows.py; nothing else names it. A figure whose name is in no list, such
as a metric of a user's own algorithm, is shown under its name.
"""
