# `make separate` and `make test` need nothing but Python 3.11 to 3.13: the environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= out
RUN = $(VENV)/bin

.PHONY: separate test repetition lint types imports

separate: $(VENV)/.installed
	$(RUN)/beamsplitter $(if $(INPUT),separate "$(INPUT)",demo) -o "$(OUTPUT)"

test: $(VENV)/.installed-dev lint types imports
	$(RUN)/pytest -n 2

# Engines that repeat bundles, and histories of the output tree: SEEDS of each scenario.
SEEDS ?= 1000
repetition: $(VENV)/.installed-dev
	BEAMSPLITTER_SEEDS=$(SEEDS) $(RUN)/pytest -n 2 tests/pipelines/test_repetition.py \
		tests/pipelines/test_output_tree.py

lint: $(VENV)/.installed-dev
	$(RUN)/ruff check . && $(RUN)/ruff format --check .

types: $(VENV)/.installed-dev
	@# mypy finds the package by a folder of its name, whatever the checkout is called.
	mkdir -p .mypy_cache/packages && ln -sfn ../.. .mypy_cache/packages/beamsplitter
	MYPYPATH=.mypy_cache/packages $(RUN)/mypy -p beamsplitter.audio -p beamsplitter.models \
		-p beamsplitter.storage -p beamsplitter.transforms -p beamsplitter.pipelines

imports: $(VENV)/.installed-dev
	$(RUN)/lint-imports

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
