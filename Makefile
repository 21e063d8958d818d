# Each target makes the environment it needs; nothing has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint types check dist docs

# One thread: on maps of 8×8 pixels a second one gains nothing, and loses much where the cores are shared.
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/convfabric fit digits --network fabric-tiny --epochs 60 --macs 25% --out runs/demo --force

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

# A site in site/, links checked; settings.md and record.md follow from the code.
docs: $(READY)
	$(BIN)/python -m convfabric.runs.reference docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	rm -rf build/site && mkdir -p build/site
	cp -r README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs benchmarks src build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(READY)
	$(BIN)/python -m build

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
