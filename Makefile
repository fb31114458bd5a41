PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run install test check test-slow format clean

run: install  ## set up if needed, then the main job
	$(BIN)/eddy-bench run

install: $(STAMP)  ## set up alone

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

test: install  ## set up if needed, then every default check
	$(MAKE) --no-print-directory check

check:  ## format, lint, types, default tests on every core
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: install  ## soaks, simulations, grids
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n auto

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
