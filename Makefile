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
	@# mypy finds the package by a folder of its name, whatever the checkout is called.
	mkdir -p .mypy_cache/packages && ln -sfn ../.. .mypy_cache/packages/beamsplitter
	MYPYPATH=.mypy_cache/packages $(RUN)/mypy -p beamsplitter.audio -p beamsplitter.models \
		-p beamsplitter.transforms -p beamsplitter.pipelines

imports: $(VENV)/.installed-dev
	$(RUN)/lint-imports

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
