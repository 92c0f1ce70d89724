"""After a run: pages, charts and findings, made from the run folder alone.

run.py          the report of a run            evaluation.py   pages of one evaluation, and of a comparison of two models
pipeline.py     the report of a pipeline       collection.py   the part of a report that is about collected rows
findings.py     what changed, as figures and as sentences that claim no more than the intervals do
tables.py       figures before and after       examples.py     the same questions before and after, side by side
charts.py       which metrics become charts    eval_charts.py  charts of evaluations
svg.py          drawing: matplotlib to SVG     frontier.py     accuracy over tokens, for test-time methods
"""
