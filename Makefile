.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

train: $(READY)  ## Set up, train on the built-in language pair, and write a report (runs/default/report/report.html).
	$(BIN)/python -m nmt.train

test: $(READY)  ## Set up and run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-slow: $(READY)  ## Run the long tests too.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "slow or not slow"

smoke: $(READY)  ## Train, evaluate and translate with a tiny model, in about a minute.
	BIN=$(BIN) scripts/smoke.sh

lint: $(READY)  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Rewrite the code in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

options: $(READY)  ## Write docs/options.md and the completion of shells, after options have changed.
	$(BIN)/python scripts/make_options_page.py

docs: $(READY)  ## Build the site of these pages and the Python reference (site/index.html).
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

setup: $(READY)  ## Make the virtual environment and install everything into it.

clean:  ## Remove the virtual environment, runs, prepared data and the site.
	rm -rf $(VENV) runs cache site .mypy_cache .ruff_cache .pytest_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or later is needed, $(PYTHON) is older; give another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,ja]'
	@touch $@

.PHONY: help train test test-slow smoke lint format options docs setup clean
