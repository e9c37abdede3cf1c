# Two commands do it all: `make demo` and `make test`. Both make .venv first, where it is missing or out of date.
#
#   make demo    train, segment, compare on procedural pictures; prints where the report lies
#   make test    lint, types, all tests
#   make venv    only the environment in .venv
#   make lint    only ruff and pyright
#   make clean   remove caches and the demo's output (make distclean: .venv too)
#
# Variables: PYTHON=/path/to/python3, DEMO="--family faces --minutes 5", TESTS="tests/data -k phantom", WORKERS=1

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test venv lint clean distclean

# Spinning OpenMP threads slow a shared machine down several times.
export GOMP_SPINCOUNT := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

BIN := .venv/bin
READY := .venv/.ready
DEMO ?=
TESTS ?=
# One single-threaded test process per core, at most four: faster than one process with many threads.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

$(READY): pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh

venv: $(READY)

demo: $(READY)
	@$(BIN)/semgan demo -o demo $(DEMO)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

test: lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations=10 $(TESTS)

clean:
	rm -rf demo .pytest_cache .ruff_cache .hypothesis build
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv src/*.egg-info
