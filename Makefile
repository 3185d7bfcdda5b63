PYTHON ?= python3
VENV   ?= .venv
# Which of benchmarks/ `make bench` runs.
BENCH  ?= sampling
BIN    := $(VENV)/bin
# Data for the tests that need real scans; they say so and skip where it is absent.
export SEGPIPE_DATA ?= ../shared/data

# Some imaging libraries set the locale to C while they are imported; text files stay UTF-8 all the same.
export PYTHONUTF8 = 1

.PHONY: setup demo test test-quick check bench image clean

setup: $(VENV)/.installed
# torch first and pinned: where a CPU build is offered pip takes that, and nothing later replaces it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/segpipe demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-quick: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/$(BENCH).py

image: setup
	docker/verify.sh

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
