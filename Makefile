# `make separate` and `make test` need nothing but Python 3.11 to 3.13: the environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= out
RUN = $(VENV)/bin

.PHONY: separate test train-demo repetition reference lint types imports

separate: $(VENV)/.installed
	$(RUN)/beamsplitter $(if $(INPUT),separate "$(INPUT)",demo) -o "$(OUTPUT)"

test: $(VENV)/.installed-dev lint types imports
	@# Each worker begins with half of the tests in their order: what those of a module share is made once.
	@# Tests wait for limits, leases and processes: three workers keep two cores busy.
	$(RUN)/pytest -n 3 --dist worksteal

# A separator of speech and music: its data, a training of 20 CPU minutes at most, and what it is
# worth on real recordings, which lie in AUDIO. It hears those of Debian's packages, which
# benchmarks/training_demo_packages.txt lists. Run again, it goes on where it was. One thread: so
# small a network gains nothing by a second one, which costs as much.
AUDIO ?= ../shared/audio
DEMO ?= demo-of-training
MINUTES ?= 17
train-demo: SHELL = bash
train-demo: $(VENV)/.installed-train
	test -d $(DEMO)/data || $(RUN)/python benchmarks/training_demo.py data \
		--audio $(AUDIO) --to $(DEMO)/data
	test -e $(DEMO)/speech-net || $(RUN)/beamsplitter config BandNet --targets speech \
		--save $(DEMO)/speech-net
	time -p env OMP_NUM_THREADS=1 $(RUN)/beamsplitter train $(DEMO)/speech-net $(DEMO)/data \
		--max-minutes $(MINUTES) --resume
	$(RUN)/python benchmarks/training_demo.py scores --data $(DEMO)/data \
		--separator $(DEMO)/speech-net --json $(DEMO)/scores.json
	$(RUN)/beamsplitter separate $(DEMO)/data/test/austen-brahms-0s+0dB/mixture.wav \
		--output $(DEMO)/separated --separator $(DEMO)/speech-net

# Engines that repeat bundles, and histories of the output tree: SEEDS of each scenario.
SEEDS ?= 1000
repetition: $(VENV)/.installed-dev
	BEAMSPLITTER_SEEDS=$(SEEDS) $(RUN)/pytest -n 2 --dist worksteal tests/pipelines/test_repetition.py \
		tests/pipelines/test_output_tree.py

# The pages of docs/ that are made of the program: commands.md and job-keys.md.
reference: $(VENV)/.installed
	$(RUN)/python docs/reference.py

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

$(VENV)/.installed-train: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed tests/oracles.txt
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@# Compiled where it is installed: without a C compiler its tests are skipped.
	-$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[perceptual]"
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --no-deps --upgrade \
		--target $(VENV)/oracles --requirement tests/oracles.txt
	touch $@
