# `make demo` and `make test` set up what they need in .venv and run; nothing else has to be installed
# but Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
# the environment is reused until the pinned versions or the dependencies change
LOCK := $(shell cat constraints.txt pyproject.toml | cksum | tr -d ' ')
READY := .venv/.ready-$(LOCK)

.PHONY: demo test test-slow test-browser screenshots docs test-search check format results ledger bench clean

demo: $(READY)
	$(BIN)/python -m stopgrad.experiments.demo

# a process a core, a thread a process; files in their order, for by the number of their tests a file of one long
# test is the last to start
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

# the explorer in a real browser: one on the PATH, or named in BROWSER_PATH; else Debian's is installed, as root
BROWSER := $(or $(BROWSER_PATH),$(shell which chromium chromium-browser google-chrome 2>/dev/null))
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
test-browser: $(READY)
	$(if $(BROWSER),,$(SUDO) apt-get update -q && $(SUDO) apt-get install -qy chromium fonts-dejavu-core)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	OMP_NUM_THREADS=1 $(BIN)/pytest --override-ini addopts="--strict-markers --import-mode=importlib" tests/browser

# docs/img: the explorer's views, of the runs of `make demo`
screenshots: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python tests/browser/screenshots.py runs/demo

# site/: the documentation, for reading without a net; warnings are errors
docs: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# properties on new draws; `--hypothesis-seed` repeats a run
test-search: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --hypothesis-profile=search $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# docs/results/main-job.md: every method of the main job on five seeds (about an hour on two cores)
results: $(READY)
	$(BIN)/python -m stopgrad.experiments.main_job --write

# docs/results/ledger.md and .html from the trials in results/ledger, those that are missing being run first
ledger: $(READY)
	$(BIN)/stopgrad reproduce all --jobs 2
	$(BIN)/python -m stopgrad.experiments.page --write

# side by side with lightly, torchvision and kornia, installed here for the purpose
bench: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/augment.py --write
	$(BIN)/python benchmarks/train_step.py --write

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (torch and torchvision: some gigabytes, a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@rm -f .venv/.ready-* && touch $@

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .mypy_cache
