"""The training loops, to be read from top to bottom. They receive policies, samplers, tasks and algorithms as arguments.

online.py          sample, score, credit, update
supervised.py      rows of data in, one update a step: pretraining, fine-tuning, reward models, DPO
collect.py         sample and score, and keep the answers as rows
evaluate.py        the same held-out prompts before and after     few_shot.py    with worked examples in the prompt
held_out.py        loss and metrics on held-out rows
data.py            which rows a step takes                        order.py       results back in the order of the prompts
steps.py           learning rate, moving reference, stopping      update.py      forward, backward, optimiser step
precompute.py      the no-grad streams that an algorithm needs    metrics.py     a step's groups in numbers
replay.py          rows of another task beside the step's own     filtering.py   filtered DPO
reward_scale.py    the scale of a reward model                    diverse.py     a few answers that stand for all
preference_gap.py  log-prob gap between preference data and the model's own samples
"""
