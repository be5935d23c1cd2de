# Everything a developer runs. Each target works from a bare checkout.
#
#   PYTHON   the interpreter .venv is made with (3.10 or later); test-gpu and bench-gpu run it
#   QUICK    with bench: 1 ends within a minute and leaves Reverb out
#   PAGE     with bench: also writes the page of the documentation, docs/benchmarks.md;
#            with bench-gpu: the part of it that is about a GPU
#   ARGS     passed on to the command behind demo, demo-ray, test, bench, test-gpu and bench-gpu

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
REVERB := .venv-reverb
BUILT_FROM := setup.cfg setup.py constraints.txt

# PIP_CONSTRAINT and not only -c: it reaches the environments in which pip builds packages too.
# The variable is split at spaces, so the path is a relative one.
# Without build isolation an install of this package asks for nothing beyond its dependencies.
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
       --disable-pip-version-check -c constraints.txt
BENCH_PIP := PIP_CONSTRAINT="constraints.txt tests/bench/constraints.txt" $(BENCH)/bin/python \
             -m pip install --quiet --disable-pip-version-check
REVERB_PIP := PIP_CONSTRAINT=tests/bench/constraints-reverb.txt $(REVERB)/bin/python \
              -m pip install --quiet --disable-pip-version-check
INSTALL := $(PIP) --no-build-isolation --use-pep517 --editable

# Says what is missing where an interpreter is used as it is.
HAS = $(PYTHON) -c 'import sys; from importlib.util import find_spec; \
      missing = [name for name in sys.argv[1:] if not find_spec(name)]; \
      sys.exit("$(PYTHON) has no " + ", ".join(missing) + \
      "; name one that has: make $@ PYTHON=..." if missing else 0)'

.PHONY: help setup demo demo-ray test check chaos fix docs bench test-gpu bench-gpu clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.with-test $(VENV)/.with-check $(VENV)/.with-docs ## make .venv with all the tools

demo: $(VENV)/.with-demo ## actors and a learner solve CartPole-v1 through one table
	$(BIN)/python -m shmtable.demo $(ARGS)

demo-ray: $(VENV)/.with-ray ## the same over three simulated nodes, one of which is lost
	$(BIN)/python -m shmtable.demo.on_ray $(ARGS)

test: $(VENV)/.with-test ## all tests in parallel, warnings are errors
	$(BIN)/python -m pytest -n auto $(ARGS)

check: $(VENV)/.with-check $(VENV)/.with-test ## lint, format, types and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/house/test_imports.py

chaos: $(VENV)/.with-test ## kill processes at random and verify: ARGS="--seconds 600 --seed 1"
	$(BIN)/python -m tests.chaos $(ARGS)

fix: $(VENV)/.with-check ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.with-docs ## build docs/_build/html, warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(BENCH)/.with-peers $(if $(QUICK),,$(REVERB)/.tried) ## measure beside peers, write bench-output/: QUICK=1
	$(BENCH)/bin/python -m tests.bench $(if $(QUICK),--rounds 300)
	$(BENCH)/bin/python -m tests.bench.beside --peers $(BENCH)/bin/python \
	    $(if $(QUICK),--effort quick,--reverb $(REVERB)/bin/python) \
	    $(if $(PAGE),--page $(PAGE)) $(ARGS)

test-gpu: ## the tests that need a CUDA device, with $(PYTHON) as it is
	@$(HAS) torch numpy filelock pytest
	$(PYTHON) -m pytest tests/gpu $(ARGS)

bench-gpu: ## measure on a CUDA device with $(PYTHON) as it is: ARGS="--device cpu" tries it out
	@$(HAS) torch numpy filelock
	$(PYTHON) -m tests.bench.gpu $(if $(PAGE),--page $(PAGE)) $(ARGS)

clean: ## remove everything the targets above made, the environments too
	rm -rf $(VENV) $(BENCH) $(REVERB) build dist *.egg-info docs/_build demo-output bench-output
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find shmtable tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	@touch $@

$(VENV)/.with-base: $(VENV)/.made $(BUILT_FROM)
	$(INSTALL) .
	@touch $@

$(VENV)/.with-demo: $(VENV)/.made $(BUILT_FROM)
	$(INSTALL) ".[demo]"
	@touch $@

$(VENV)/.with-ray: $(VENV)/.made $(BUILT_FROM)
	$(INSTALL) ".[demo,ray]"
	@touch $@

$(VENV)/.with-test: $(VENV)/.made $(BUILT_FROM)
	$(INSTALL) ".[test,demo,cli,watch]"
	@touch $@

$(VENV)/.with-check: $(VENV)/.made $(BUILT_FROM)
	$(INSTALL) ".[check,demo]"
	@touch $@

$(VENV)/.with-docs: $(VENV)/.made $(BUILT_FROM)
	$(INSTALL) ".[docs]"
	@touch $@

# What a peer lacks is no reason to measure none: the bench says who is not there.
$(BENCH)/.with-peers: $(BUILT_FROM) tests/bench/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH_PIP) setuptools
	$(BENCH_PIP) --no-build-isolation --use-pep517 --editable ".[demo]"
	$(BENCH_PIP) cpprb || echo "cpprb cannot be installed here"
	$(BENCH_PIP) torchrl tensordict || echo "TorchRL cannot be installed here"
	@touch $@

$(REVERB)/.tried: tests/bench/constraints-reverb.txt
	$(PYTHON) -m venv $(REVERB)
	$(REVERB_PIP) "dm-reverb[tensorflow]" setuptools || echo "Reverb cannot be installed here"
	@touch $@
