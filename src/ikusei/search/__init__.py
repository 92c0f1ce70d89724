"""Compute at answer time: many answers to one prompt, and which of them to give.

    vote           the answer that most give; weighted by what they earn           self-consistency, arXiv:2203.11171
    best_of_n      the one that earns most
    regularised    best of n, held back by what is likely, by what is like the others, or by length      arXiv:2404.01054, 2502.12668
    mbr            the one that the others agree with most, by any utility; and a diverse few            arXiv:2311.05263, 2401.05054

A method gives each answer a value, and the largest is chosen (`choosing.py`), so that one estimate of accuracy at n serves all of them.

Left out, for later: beam and tree search, revision, budget forcing.
"""
