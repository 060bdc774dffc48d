# `make demo` runs the main job, `make test` the tests; each sets up what it needs in .venv.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
DEMO   ?= runs/demo
# Tests run in a process a core, whole files in each; two torches with two threads each would be
# slower than one process alone.
JOBS   ?= auto

# What other versions and processors are tried on: all that is compiled and all that draws or mines.
# Reading, training and the command line call the same kernels; `make test` has them, and what takes
# long for the sake of processes: loaders' workers, and a job that is killed twenty times.
CORE   := tests/kernels tests/samplers tests/mining --ignore tests/mining/test_shards_killed.py \
	--ignore tests/samplers/test_loaders.py --ignore tests/samplers/test_loader_epochs.py
PYTEST := -m pytest --numprocesses $(JOBS) --dist loadfile -q -p no:cacheprovider
# compiles everything in three more ways, for whatever processor and settings there are
WAYS   := tests/kernels/test_jit.py::test_the_same_draws_and_windows_however_kernels_are_compiled

.PHONY: demo test lint bench soak bench-check wheel-check clean
.PHONY: test-lowest test-generic test-bounds test-pythons

demo: $(VENV)/.package
	$(RUN) -m fastneg demo --out $(DEMO) $(ARGS)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

# does it work with these versions?
test-lowest: $(VENV)-lowest/.done
	@if test -e $(VENV)-lowest/skipped; then \
		echo "test-lowest: skipped, $$(cat $(VENV)-lowest/skipped)"; \
	else \
		PYTHONPATH=. OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python $(PYTEST) $(CORE) $(ARGS); \
	fi

# does another set of instructions give the same bits?
test-generic: $(VENV)/.test
	NUMBA_CPU_NAME=generic OMP_NUM_THREADS=1 $(RUN) $(PYTEST) $(CORE) --deselect $(WAYS) $(ARGS)

# does a kernel read or write beside its arrays?
test-bounds: $(VENV)/.test
	NUMBA_BOUNDSCHECK=1 OMP_NUM_THREADS=1 $(RUN) $(PYTEST) tests/kernels --deselect $(WAYS) $(ARGS)

# does it compile on that Python, and give the pinned ids?
test-pythons:
	PYTHONPATH=. OMP_NUM_THREADS=1 JOBS=$(JOBS) CORE="$(CORE)" sh .ci/newer-pythons

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
	rm -rf $(VENV) $(VENV)-* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
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

$(VENV)-lowest/.done: pyproject.toml constraints.txt .ci/lowest .ci/lowest-environment
	sh .ci/lowest-environment $(VENV)-lowest $(PYTHON)
	@test -e $(VENV)-lowest/skipped || touch $@

# A rival that cannot be had is no error: its rows say so.
$(VENV)/.rivals: $(VENV)/.bench
	-$(PIP) --group rivals
	-$(PIP) --no-deps --group rivals-alone
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --group lint
	@touch $@
