# `make demo` and `make test` are for users. Every target sets up .venv when it is missing or out of date.

# The first Python that runs and has a version that all packages support; a name may be a broken shim.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	if $$python -c '$(FITS)' >/dev/null 2>&1; then echo $$python; break; fi; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-fast test-slow test-all ci lint docs results bench clean

$(READY): pyproject.toml setup.py
	@$(PYTHON) -c '$(FITS)' >/dev/null 2>&1 || { \
		echo "ganvas needs Python 3.11 to 3.13, and none was found. Install one, or set it: make PYTHON=/path/to/python"; \
		exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# An interrupted demo is resumed; `rm -r runs/demo` restarts it.
demo: $(READY)
	$(BIN)/python -m data_scripts earth --out datasets/earth128 --size 128
	$(BIN)/python -m pix2pix train --data datasets/earth128 --out runs/demo --preset demo \
		$(if $(wildcard runs/demo/config.json),--resume)
	$(BIN)/python -m pix2pix evaluate runs/demo --data datasets/earth128 \
		--sheet runs/demo/contact-sheet.png --out runs/demo/translated
	$(BIN)/python -m pix2pix report runs/demo
	@echo
	@echo "Held-out maps, the translations and the targets:"
	@echo "  $(CURDIR)/runs/demo/contact-sheet.png"
	@echo "Curves and samples: $(CURDIR)/runs/demo/report.html"
	@echo "All translations: $(CURDIR)/runs/demo/translated"
	@echo
	@echo "The demo trains a small network for a few minutes. The full run (256 pixels, 200 epochs; a GPU helps):"
	@echo "  $(BIN)/python -m data_scripts earth --out datasets/earth"
	@echo "  $(BIN)/pix2pix train --data datasets/earth --out runs/earth --preset best --no-flip"

PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
COVERAGE_FLOOR := 94

# test-fast: while you work. test: before a pull request. test-all: everything, with coverage. ARGS goes to pytest.
test-fast: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

test: $(READY)
	$(PYTEST) -m "not slow or essential" $(ARGS)

test-slow: $(READY)
	$(PYTEST) -m "slow and not essential" $(ARGS)

test-all: $(READY)
	$(PYTEST) --cov --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)

# In two parts, whose coverage is added up.
ci: lint
	$(MAKE) test ARGS="--cov --cov-report= $(ARGS)"
	$(MAKE) test-slow ARGS="--cov --cov-append --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The commands behind docs/results.md.
results:
	@grep -E '^(pix2pix|cyclegan|dcgan|python) ' docs/results.md

bench: $(READY)
	$(BIN)/python -m benchmarks.train_step --model pix2pix --image-size 256 --batch-size 1,4

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
