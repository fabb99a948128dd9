# Framebank: everything a developer runs. Each target builds .venv first when it is missing.
#   make demo    the main job end to end on clips it makes itself, offline, under ten minutes
#   make test    all tests
#   make check   format, lint, types
#   make bench   extraction against the plain loop, as a ratio

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := features pipelines train tests infra framebank.py setup.py

.PHONY: install demo test check format bench clean

install: $(STAMP)

$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/framebank demo --out framebank-demo

test: install
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: install
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: install
	$(BIN)/python infra/bench/extract_ratio.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
