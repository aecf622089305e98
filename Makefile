# The commands of the house. `make` alone explains them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
T ?= tests
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help demo test lint format clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is needed (Debian: python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## Start everything, play one whole call, serve (PORT=8000; ONCE=1 stops after the call)
	@PORT=$(PORT) ONCE=$(ONCE) $(BIN)/python -m sandbox.demo

test: $(VENV)/.installed ## Run all tests on real embedded servers (T=path picks some)
	$(BIN)/python -m pytest $(T)

lint: $(VENV)/.installed ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Forget the virtual environment and the demo's data
	rm -rf $(VENV) .demo
