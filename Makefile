# `make demo` runs the main job, `make test` the tests; each sets up what it needs in .venv.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
DEMO   ?= runs/demo
# Tests run in a process a core, whole files in each; two torches with two threads each would be
# slower than one process alone.
JOBS   ?= auto

# What other versions, processors and settings are tried on: all that is compiled.
CORE   := tests/kernels tests/samplers tests/mining --ignore tests/mining/test_shards_killed.py
PYTEST := -m pytest --numprocesses $(JOBS) --dist loadfile -q -p no:cacheprovider
# torch's lower bound is tried by hand: its older builds bring gigabytes of CUDA
TORCH  ?= 2.13.0

.PHONY: demo test lint bench soak bench-check wheel-check clean
.PHONY: test-lowest test-generic test-bounds test-pythons

demo: $(VENV)/.package
	$(RUN) -m fastneg demo --out $(DEMO) $(ARGS)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

test-lowest: $(VENV)-lowest/.done
	OMP_NUM_THREADS=1 PYTHONPATH=. $(VENV)-lowest/bin/python $(PYTEST) $(CORE) $(ARGS)

test-generic: $(VENV)/.test
	NUMBA_CPU_NAME=generic OMP_NUM_THREADS=1 $(RUN) $(PYTEST) $(CORE) $(ARGS)

test-bounds: $(VENV)/.test
	NUMBA_BOUNDSCHECK=1 OMP_NUM_THREADS=1 $(RUN) $(PYTEST) tests/kernels $(ARGS)

test-pythons:
	JOBS=$(JOBS) sh .ci/newer-pythons

lint: $(VENV)/.lint
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --strict

bench: $(VENV)/.rivals
	$(RUN) -m bench.results $(ARGS)

soak: $(VENV)/.bench
	$(RUN) -m bench.results --only soak $(ARGS)

bench-check: $(VENV)/.bench
	$(RUN) -m pytest bench --benchmark-disable $(ARGS)

wheel-check: $(VENV)/.package
	PYTHON=$(RUN) sh .ci/wheel-check

clean:
	rm -rf $(VENV) $(VENV)-lowest dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find fastneg tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.package: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fastneg needs Python 3.11 or later; say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	$(PIP) --group test
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) --group bench
	@touch $@

$(VENV)-lowest/.done: pyproject.toml .ci/lowest
	rm -rf $(VENV)-lowest
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) .ci/lowest torch=$(TORCH) > $(VENV)-lowest/lowest.txt
	$(VENV)-lowest/bin/python -m pip install --disable-pip-version-check --quiet \
		--requirement $(VENV)-lowest/lowest.txt pytest pytest-xdist hypothesis scipy pandas polars
	@touch $@

# A rival that cannot be had is no error: its rows say so.
$(VENV)/.rivals: $(VENV)/.bench
	-$(PIP) --group rivals
	-$(PIP) --no-deps --group rivals-alone
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --group lint
	@touch $@
