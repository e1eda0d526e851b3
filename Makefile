# Two commands do all the set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# A process per core, where pip has one; what hardly anyone imports waits until someone does. What some package ships for
# other Pythons does not compile.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/|/pip/' $(VENV)/lib || true

# Some containers set it, and then each of the tests' many processes compiles the package again.
export PYTHONDONTWRITEBYTECODE :=

TESTS := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test lint docs dist throughput clean

quickstart: $(VENV)/.demo  ## install, run the 12-condition quickstart suite, write its report
	$(BIN)/altgrad-bench run suites/quickstart.yaml

test: $(VENV)/.test  ## run the tests; with SLOW=1 also installations, browsers, compilers, archives of studies, the pretend GPU
	$(TESTS) $(if $(SLOW),,-m "not slow")

lint: $(VENV)/.test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs  ## the documentation as a site in docs/_site; a broken link fails
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs auto -b dirhtml docs docs/_site

dist: $(VENV)/.test  ## sdist and wheel in dist/, checked and tried on every Python that is here
	ALTGRAD_PYTHONS=all $(BIN)/python -m pytest tests/test_package.py
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

throughput: $(VENV)/.test  ## pytest-benchmark: every format, kept for comparison in .benchmarks/
	$(BIN)/python -m pytest tests/throughput --benchmark-only --benchmark-autosave \
	    --benchmark-columns=median,iqr,ops,rounds --benchmark-sort=median

# torch first, at the version of constraints.txt, so that pip does not weigh others; before it pip itself, since what some
# Pythons bring along takes twice the time.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "altgrad-bench needs Python 3.11 to 3.13; try make PYTHON=python3.12 " + " ".join(sys.argv[1:])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[demo]'
	$(COMPILE)
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[demo,test,dev]'
	$(COMPILE)
	touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[docs]'
	touch $@

clean:  ## remove the virtual environment and caches (never runs/)
	rm -rf $(VENV) build dist docs/_site docs/generated *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
