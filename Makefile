# Every verb of the project. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STACK  ?= lab
export PATH := $(CURDIR)/$(BIN):$(PATH)

# --- set-up ------------------------------------------------------------------------------------------------------
HOST_PACKAGES := lab/build/host-packages.txt
STAMP := $(VENV)/.installed-$(firstword $(shell sha256sum requirements.txt pyproject.toml 2>/dev/null | sha256sum))

.PHONY: help
help: ## List all verbs
	@awk 'BEGIN {FS = ":.*## "; printf "usage: make VERB [STACK=lab] [PROFILE=balanced] [BENCH=name]\n\n"} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: packages venv ## Install what the other verbs need: Debian packages (root), the virtual environment

.PHONY: packages
packages:
	@scripts/install-packages.sh $(HOST_PACKAGES)

.PHONY: venv
venv: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@echo "==> virtual environment in $(VENV) from requirements.txt (hashes checked)"
	@scripts/make-venv.sh "$(PYTHON)" "$(VENV)"
	@rm -f $(VENV)/.installed-* && touch $@

# --- the lab and the main job --------------------------------------------------------------------------------------
.PHONY: demo
demo: setup ## The whole story: build, boot, site.yml, pulumi up, lose a worker, cut a worker off, report
	@$(BIN)/python -m lab.demo

.PHONY: build
build: setup ## Build the lab's kernel, tools, packages and images (cached outside the checkout)
	@$(BIN)/python -m lab build

.PHONY: lab-up
lab-up: build ## Boot the lab's four machines
	@$(BIN)/python -m lab up

.PHONY: lab-down
lab-down: venv ## Stop the lab and remove its disks
	@$(BIN)/python -m lab down

.PHONY: site
site: lab-up ## Run site.yml on the lab (again: changes nothing)
	@$(BIN)/ansible-playbook site.yml $(if $(PROFILE),-e tandem_profile=$(PROFILE))

.PHONY: up
up: setup ## Run `pulumi up` for STACK (default lab; again: changes nothing)
ifeq ($(STACK),lab)
	@$(BIN)/python -m lab.pulumi up $(if $(PROFILE),--profile $(PROFILE))
else
	@pulumi stack select --create $(STACK) && pulumi up --stack $(STACK)
endif

.PHONY: render
render: setup ## Write STACK's objects to build/render/STACK as YAML, for kubectl or a GitOps tool
	@$(BIN)/python -m lab.pulumi render --stack $(STACK) $(if $(PROFILE),--profile $(PROFILE))

# --- checks ----------------------------------------------------------------------------------------------------------
.PHONY: lint
lint: venv ## ruff, mypy --strict, ansible-lint production, yamllint, shellcheck
	@scripts/lint.sh

.PHONY: test
test: build lint ## What CI runs: lint, unit tests, and the whole job on the lab; cleans up after itself
	@$(BIN)/python -m pytest -m "not long"

.PHONY: test-unit
test-unit: venv ## The tests that need no lab
	@$(BIN)/python -m pytest -m "not long and not lab"

.PHONY: test-long
test-long: build ## The slow rest; records the result in docs/verification.json
	@$(BIN)/python -m tests.verification

.PHONY: bench
bench: build ## Measure and write build/bench/NAME.json (BENCH=name for one; BENCH=list lists them)
	@$(BIN)/python -m lab.bench $(BENCH)

.PHONY: docs
docs: venv ## Regenerate the tables and figures in docs/ and README.md
	@$(BIN)/python -m lab.docs

# --- upkeep ------------------------------------------------------------------------------------------------------------
.PHONY: upgrade-pins
upgrade-pins: venv ## Recompile requirements.txt from requirements.in, with hashes; tidy the Go modules
	@$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.txt requirements.in
	@$(BIN)/python scripts/controllers-requirements.py > tandem/controllers/requirements.txt
	@scripts/tidy-go-modules.sh

.PHONY: clean
clean: ## Remove what was made in the checkout; the lab's cache is left (python -m lab build --help)
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m lab down || true; fi
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis .ansible *.egg-info $(VENV)
