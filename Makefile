# The commands of the house. `make` alone lists them.

# An interpreter of this machine, used once, to make the virtual environment.
PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14,\
  $(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin
INSTALLED := .venv/.installed

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos soak guides bench bench-quick bench-large bench-scaling lint format clean

help: ## list these commands
	@echo "Voicedesk. Needs Python 3.11 or newer, and nothing else."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED) ## make .venv with everything in it (the other commands do it when needed)

demo: $(INSTALLED) ## start everything, play one call, serve at PORT=8000; ONCE=1 stops afterwards
	@$(BIN)/python -m sandbox.demo

test: $(INSTALLED) ## run the tests; T=tests/unit picks some; TEST_POSTGRES_BIN=... another PostgreSQL
	@$(BIN)/python -m pytest $(T)

# CHAOS="--group redis --out redis.json" picks some and keeps their rows; `python -m chaos --help` tells the rest.
chaos: $(INSTALLED) ## break everything under load and judge it (two hours); SHORT=1 a part in three minutes
	@$(BIN)/python -m chaos $(if $(SHORT),--short) $(CHAOS)

soak: $(INSTALLED) ## an hour's load of 200 organizations: nothing may grow; SHORT=1 ten minutes of it
	@$(BIN)/python -m chaos --group soak $(if $(SHORT),--events 24000) $(CHAOS)

guides: $(INSTALLED) ## run the guides' commands (docs/*.md) against a fresh installation
	@$(BIN)/python -m sandbox.guides

bench: $(INSTALLED) ## measure beside Express + BullMQ and bare Flask; writes docs/performance.md (wants Node and wrk)
	@$(BIN)/python -m benchmarks

bench-quick: $(INSTALLED) ## few short rounds, publishes nothing; fails when a published ratio has fallen by a third
	@$(BIN)/python -m benchmarks --quick $(BENCH)

bench-large: $(INSTALLED) ## accepts, pages and deliveries in an inbox of ten million rows (some 20 GB, half an hour)
	@$(BIN)/python -m benchmarks.large $(BENCH)

bench-scaling: $(INSTALLED) ## accepts and deliveries with more processes, and with ten thousand organizations (half an hour)
	@$(BIN)/python -m benchmarks.scaling $(BENCH)

lint: $(INSTALLED) ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## put the code into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## throw away .venv and caches (the demo's data is in .demo, and stays)
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Installed again when what is to be installed has changed; made again when its interpreter has gone.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Voicedesk needs Python 3.11 or newer: no python3 here is (set PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	@echo "installing what pyproject.toml asks for, in the versions of constraints.txt" >&2
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
