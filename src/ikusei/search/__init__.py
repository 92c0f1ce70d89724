"""Test-time compute: many answers to one prompt, and which of them to return.

    vote           the most frequent answer, optionally weighted by rewards      self-consistency, arXiv:2203.11171
    best_of_n      the highest reward
    regularised    best of n with a regulariser: likelihood, similarity to the others, or length         arXiv:2404.01054, 2502.12668
    mbr            minimum Bayes risk, by any utility; and a diverse subset                              arXiv:2311.05263, 2401.05054

A method gives each answer a value, and the largest is chosen (eval_metrics/choosing.py): one estimate of accuracy at n serves all.

They choose among finished answers. Others steer the sampling (method.py, on top of samplers/continuation.py):

    repeated    n answers and a chooser, at once; or in rounds until the vote is decided                 arXiv:2305.11860
    beam        in steps of text, led by a guide; diverse verifier tree search                           arXiv:2408.03314
    revision    the model sees its last answer and answers again                                         arXiv:2408.03314
    budget      the chain of thought is extended, or truncated                                                      arXiv:2501.19393

Each reports the number of tokens sampled. A new method is a file here, with its record (methods.py).

    method.py    what a method receives and returns        methods.py   the registry of methods
    answer.py    `ikusei.answer`: load a model, run one    trees.py     trees of partial responses, for beam.py
    vote.py, best_of_n.py, regularised.py, mbr.py, repeated.py, beam.py, revision.py, budget.py     the methods

Left out: Monte Carlo tree search, which needs a value of unfinished thoughts that is worth its price.
"""
