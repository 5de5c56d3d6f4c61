# `make separate` and `make test` need nothing but Python 3.11 to 3.13: the environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= out
RUN = $(VENV)/bin

.PHONY: separate test lint types imports

separate: $(VENV)/.installed
	$(RUN)/beamsplitter $(if $(INPUT),separate "$(INPUT)",demo) -o "$(OUTPUT)"

test: $(VENV)/.installed-dev lint types imports
	$(RUN)/pytest -n 2

lint: $(VENV)/.installed-dev
	$(RUN)/ruff check . && $(RUN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(RUN)/mypy

imports: $(VENV)/.installed-dev
	$(RUN)/lint-imports

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
