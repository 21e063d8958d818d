# Each target makes the environment it needs; nothing has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint types check dist

# One thread: on maps of 8×8 pixels a second one gains nothing, and loses much where the cores are shared.
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/convfabric fit digits --network fabric-tiny --epochs 60 --macs 25% --out runs/demo --force

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

dist: $(READY)
	$(BIN)/python -m build

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
