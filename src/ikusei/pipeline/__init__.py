"""During a run: a recipe is a pipeline of one stage or several, and each stage trains a model or collects its answers.

train.py             the runner, and the entries `train` and `resume`
job.py               one stage's run, opened or created
staged.py            a pipeline of several stages
training_run.py      evaluate, train, evaluate again
collection_run.py    sample the model and write its answers as rows
evaluator.py         the evaluations before and after training
gold_watch.py        alarms and the gold reward during training, and what follows from them
outcome.py           how a run ended
probability_mass.py  how much probability a model gives to sets of strings (`ikusei lens`)
stage_masses.py      the same for every stage of a pipeline
"""
