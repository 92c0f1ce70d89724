"""From a YAML file to the components of a run: read it, validate it, build it once.

reader.py       YAML read strictly into dataclasses; every problem with its line
errors.py       pydantic's errors in the words of a recipe
schema.py       the sections of a recipe and their classes
classes.py      classes by name: ours, and a user's own
stages.py       a recipe of stages, read into one recipe for each stage
validate.py     rules that need nothing loaded
rows.py         the rows that a recipe names, with the checks that need a tokenizer
stage_checks.py what can be checked of a stage before earlier stages have run
build.py        the policy, rows and rewards; the only place that names concrete classes
find.py         which recipe a name means
template.py     `ikusei new`: write a recipe for a user's data
"""
