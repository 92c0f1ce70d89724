"""One claim about the field in each file: a `CLAIM` (claim.py) with its setup and its criterion."""
