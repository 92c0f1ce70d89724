"""The run folder: what a run writes, and how it is read again. The files are the truth; display and reports are views of them.

    folder.py       a run that is being written: metrics, events, responses, evaluations, checkpoints
    files.py        files that are written whole or not at all, and logs that a kill cannot spoil
    tables.py       Parquet tables of responses and of evaluation samples
    formats.py      the number of the file format, and old recipe keys under their new names
    provenance.py   commit, versions and machine
    read.py         a run folder as one record, for reports
    find.py         which model a name means: a run stands for the model that it trained
    comparison.py   two models on the same prompts: paired differences with intervals
    win_rate.py     how often one model's answers are better than another's
    display.py      progress on the terminal
    health.py       healthy ranges of metrics

Nothing is imported here: `ikusei runs` needs folder.py alone, and plots and quantiles take seconds to load.
"""
