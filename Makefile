# Every target sets up .venv by itself; the stamp redoes it when what is to be installed changes.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TYPES := build/types
# A process a core, and one thread a process; a file's tests share their fixtures in one of them.
# WORKERS=0 runs the tests in one process. Bytecode is kept, since nothing was compiled ahead.
WORKERS ?= auto
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile
PROSE := .ci .pre-commit-config.yaml CHANGELOG.md Makefile README.md pyproject.toml
BENCHMARKS := tokenizer tokenizer_speed representation waveform fidelity imagination imagined_replay offline
CODE := $(wildcard worldgen envs agents tests benchmarks)

.PHONY: help install format lint type test test-all demo bench check build clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Make .venv and install the library and the developer's tools

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("worldgen needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@
	@echo 'worldgen is in $(VENV): source $(BIN)/activate, then worldgen --help'

format: $(STAMP) ## Rewrite the code in the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(STAMP) ## Look for mistakes, foreign form and misspelt words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(CODE) docs $(PROSE)

# mypy does not follow the folder mapping of pyproject.toml: it sees a tree of links that has the
# installed shape, and its messages are given back the paths of the repository.
type: $(STAMP) ## Check the types, strictly
	rm -rf $(TYPES)
	mkdir -p $(TYPES)/worldgen
	ln -s $(CURDIR)/worldgen/* $(CURDIR)/envs $(CURDIR)/agents $(TYPES)/worldgen/
	ln -s $(CURDIR)/tests $(wildcard $(CURDIR)/benchmarks) $(TYPES)/
	set -o pipefail; cd $(TYPES); $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache . \
		| sed -E 's#^worldgen/(envs|agents)/#\1/#'

test: $(STAMP) ## Run the tests
	$(PYTEST)

test-all: $(STAMP) ## Run the tests, the slow ones too
	$(PYTEST) -m ''

demo: $(STAMP) ## Train an agent in the dream of MiniGrid-DoorKey-5x5 and film it
	$(BIN)/worldgen train MiniGrid-DoorKey-5x5-v0 --run runs/demo --overwrite \
		--timesteps 8000 --stop-at-return 0.9 --judgement.compare-ppo

bench: $(STAMP) ## Run every benchmark
	@for program in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$program || exit; done

check: lint type test ## All that must be green before a commit

build: $(STAMP) ## Make the source archive and the wheel in dist/
	$(BIN)/python -m build --no-isolation

clean: ## Remove what the targets made, .venv and runs/ excepted
	rm -rf build dist worldgen.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
