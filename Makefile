# `make demo` and `make test` need only Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
STORE  ?= store
SWEEP  ?= qa_ratio_stage2_2
BIN    := $(VENV)/bin

.PHONY: setup demo test test-all slurm-test lint bench clean

# Installs again when what is to be installed changes.
setup: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about three minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m davinci data build embedded --store $(STORE)
	@$(BIN)/python launch.py -m sweep=$(SWEEP) scale=tiny store=$(STORE)
	@$(BIN)/python -m analysis report $(SWEEP) --store $(STORE)

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not slurm"

test-all: setup
	@$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

slurm-test: setup
	@SLURM_ACCOUNTING=1 tests/slurm/cluster.sh install
	@$(BIN)/python -m pytest tests/slurm tests/chaos -n 3 --dist loadgroup -m "slurm and not slow" --durations=8

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# All of them, also after one that misses a target.
bench: setup
	@status=0; for script in $(filter-out $(addprefix benchmarks/,swarm.py calibration.py width.py),$(wildcard benchmarks/[a-z]*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || status=1; done; exit $$status

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
