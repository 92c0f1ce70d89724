"""One file an algorithm: frozen numbers, `credit` and `loss`. A new one is its file and its name in `recipe.py`; the laws take it up."""
