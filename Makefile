# `make demo` runs the main job, `make test` the tests; each sets up what it needs in .venv.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
DEMO   ?= runs/demo
# Tests run in a process a core, whole files in each; two torches with two threads each would be
# slower than one process alone.
JOBS   ?= auto

.PHONY: demo test lint bench soak bench-check wheel-check clean

demo: $(VENV)/.package
	$(RUN) -m fastneg demo --out $(DEMO) $(ARGS)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

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
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
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

# A rival that cannot be had is no error: its rows say so.
$(VENV)/.rivals: $(VENV)/.bench
	-$(PIP) --group rivals
	-$(PIP) --no-deps --group rivals-alone
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --group lint
	@touch $@
