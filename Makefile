# From a fresh clone, with Debian's python3.11, git and make:
#   make run     a daemon with a demo organization and a class that plays, until Ctrl-C
#   make test    the checks and the tests, under 10 minutes
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
EXTRAS := dev,parquet
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest

.PHONY: run test test-long bench bench-growth lint format profile docs clean venv
.DEFAULT_GOAL := test

run: $(STAMP)
	$(BIN)/mlc-broker demo

test: lint
	$(PYTEST) -n $(WORKERS) -m "not long and not benchmark"

test-long: lint
	$(PYTEST) -m "not benchmark"

# Tables, plots and docs/capacity.md: `make bench BENCH=--quick` first, to see that all of it works.
BENCH ?=
bench: $(VENV)/bench
	$(BIN)/python -m tests.benchmarks compare $(BENCH)

bench-growth: $(VENV)/bench
	$(BIN)/python -m tests.benchmarks growth --seconds-max 3600 $(BENCH)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

profile: $(VENV)/bench
	$(BIN)/mlc-broker bench --profile

# config.toml and docs/config.md are made from mlc_broker/config_sections.py
docs: $(STAMP)
	$(BIN)/python -m mlc_broker.cli.reference_config
	$(BIN)/python -m mlc_broker.cli.reference_privacy

venv: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq python3-venv; \
	  else \
	    echo "Python's venv module is missing. Install it, then call make again:"; \
	    echo "    sudo apt-get install -y python3-venv"; exit 1; \
	  fi; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS),bench]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
