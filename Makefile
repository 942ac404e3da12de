# Thin: every target calls a tool that works without make (README says how). `make tutorial` and `make test` do the whole
# set-up on a machine with Python 3.11 or newer; PYTHON=/path/to/python3 chooses another than the first one found.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
PLAN ?= laptop
MINUTES ?= 8

.DEFAULT_GOAL := help
.PHONY: help tutorial test numerics bench gpu reproduce notebooks lab clean

help:
	@echo "make tutorial        run the lessons and a small training, two at a time; writes report/index.html"
	@echo "make test            every test, the notebooks among them, and the linter"
	@echo "make numerics        the tests under other arithmetics: other processors, another torch; writes results/numerics.json"
	@echo "make bench           speed and memory, as ratios, on an idle machine; writes results/bench.json"
	@echo "make gpu             on a machine with a GPU, in MINUTES=8: tests, throughput, two plans; packs report/results-gpu.tgz"
	@echo "make reproduce       the runs behind a table of results: PLAN=laptop, or another of its plans"
	@echo "make lab             JupyterLab on the notebooks"
	@echo "make notebooks       run the teaching notebooks and the solutions in place, before a commit"
	@echo "make clean           remove report/ and caches; runs/ and .venv stay"

tutorial: $(INSTALLED)
	@$(BIN)/fsslib tutorial

test: $(INSTALLED)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests notebooks --nbval -n 2 --nbval-cell-timeout 300 -q

numerics: $(INSTALLED)
	@$(BIN)/python -m tests.numerics $(ARGUMENTS)

bench: $(INSTALLED)
	@$(BIN)/python -m tests.benchmarks.measure

gpu: $(INSTALLED)
	@$(BIN)/python -m tests.gpu --minutes $(MINUTES)

reproduce: $(INSTALLED)
	@$(BIN)/fsslib reproduce $(PLAN)

notebooks: $(INSTALLED)
	@$(BIN)/python -m fsslib.teaching.execute notebooks/[0-8]*.ipynb notebooks/solutions/*.ipynb

lab: $(INSTALLED)
	@$(BIN)/jupyter lab notebooks

clean:
	rm -rf report build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fsslib needs Python 3.11 or newer and found none. Install one, or name it:" \
		"make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON). torch and what it needs are several GB: this takes minutes, once."
	@start=$$(date +%s); $(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" && \
		echo "Downloaded and installed in $$(( $$(date +%s) - start )) s."
	@touch $@
