# Each target does everything that it needs, on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin
.DEFAULT_GOAL := help
.PHONY: help install quickstart test check bench seedling clean

help:
	@echo "make quickstart   raise the seedling by reinforcement learning, and see what it gained (about a minute, once installed)"
	@echo "make test         run the tests          make check   ruff, basedpyright, the shape of the code"
	@echo "make bench        measure against TRL and against the machine (about two hours; nothing else should run)"
	@echo "make seedling     grow the embedded base model anew (about ten minutes)"
	@echo "make install      what the others do first, into .venv     make clean   remove it, and what builds and tests left"

install: .venv/installed

# A torch that is in .venv already and fits the constraint is kept: pip installs nothing where a requirement is met.
.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,compare,lora]'
	@touch $@

quickstart: install
	$(BIN)/ikusei train recipes/quickstart.yaml

test: install
	$(BIN)/python -m pytest -m "not gpu" -n 3 --dist worksteal

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest tests/test_shape_of_the_code.py

bench: install
	$(BIN)/python bench/limits.py
	$(BIN)/python bench/scaling.py
	$(BIN)/python bench/vs_trl.py

seedling: install
	$(BIN)/ikusei train recipes/seedling.yaml

clean:
	rm -rf .venv build .pytest_cache .ruff_cache
