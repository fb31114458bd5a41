PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q -n auto --dist loadfile

.PHONY: run install test check docs test-slow test-gpu test-lowest test-luck format clean

run: install  ## set up if needed, then the main job
	$(BIN)/eddy-bench run

install: $(STAMP)  ## set up alone

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

test: install  ## set up if needed, then every default check
	$(MAKE) --no-print-directory check

check:  ## format, lint, types, direction of imports, default tests on every core
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	OMP_NUM_THREADS=1 $(PYTEST)

docs: install  ## the site of docs/ in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test-slow: install  ## soaks, simulations, grids, and what takes longer than 0.8 s (tests/slow.txt)
	OMP_NUM_THREADS=1 $(PYTEST) -m slow

test-gpu: install  ## what needs a CUDA or MPS device; skipped without one, saying so
	$(PYTEST) -m gpu -rs

# Warnings of older packages are no errors there.
LOWEST := .venv-lowest
test-lowest: $(LOWEST)/.installed  ## default tests on the lowest versions that are declared
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q -n auto --dist loadfile -W default

$(LOWEST)/.installed: pyproject.toml requirements-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c requirements-lowest.txt -e '.[dev,datasets,offload]'
	touch $@

# Tests that pass by rounding or by luck turn red under other arithmetic, in another order, with
# other random numbers: each line is one of three, all of them together take about 15 minutes.
LUCK = EDDY_BENCH_TEST_SEED=$(1) $(PYTEST) -p randomly --randomly-seed=$(1)
test-luck: install  ## default tests on other kinds of processors, in random order, three seeds
	OMP_NUM_THREADS=2 $(call LUCK,1)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(call LUCK,2)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(call LUCK,3)

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
