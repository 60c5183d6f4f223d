# Everything runs in .venv; `make demo` is the first thing to try.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: install dev demo test lint bench clean help

help:
	@echo "make install  the package and what it needs, into $(VENV)"
	@echo "make demo     a search from scratch to verified models, under six minutes"
	@echo "make test     all tests"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make bench    quick versions of the benchmarks (BENCH=name for one)"
	@echo "make clean    what make and the tools created, except $(VENV) and runs/"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --no-compile -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --no-compile -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.core $@

install: $(VENV)/.core

dev: $(VENV)/.dev

demo: $(VENV)/.core
	$(BIN)/autocompress search --space tiny_cnn --data digits --device local --budget 210s --run-dir runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCH ?= exactness pricing latency_prediction
bench: $(VENV)/.core
	@set -e; for name in $(BENCH); do $(BIN)/python -m benchmarks $$name --quick; done

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
