"""Before a run: is the recipe right, will it learn, can its rewards be cheated, what would help?"""
