# make install | test | test-all | lint | demo | clean
# Needs Python 3.10 or newer and a package registry. Another interpreter: make install PYTHON=python3.12

PYTHON ?= python3
EXTRAS ?= dev,zoo
TEST_EXTRAS ?= torch,tvm,cross
# Two workers; the tests of one file stay together, so that a file's fixtures are built once.
PYTEST ?= -n 2 --dist loadfile

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
FOR_TESTS := $(VENV)/.installed-for-tests
PIP := $(PY) -m pip install --quiet --constraint constraints.txt

.PHONY: install install-for-tests test test-all lint demo clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("prunec needs Python 3.10 or newer: make PYTHON=python3.x" if sys.version_info < (3, 10) else 0)'
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) "setuptools>=77"
	$(PIP) --no-build-isolation --editable ".[$(EXTRAS)]"
	@touch $(STAMP)

# The [torch] and [tvm] extras on top, for the tests: large, and the demo does not need them.
install-for-tests: $(FOR_TESTS)

$(FOR_TESTS): $(STAMP)
	$(PIP) --no-build-isolation --editable ".[$(EXTRAS),$(TEST_EXTRAS)]"
	@touch $(FOR_TESTS)

test: install-for-tests
	$(PY) -m pytest $(PYTEST)

# Everything; what needs a device that is not here is skipped with its reason.
test-all: install-for-tests
	$(PY) -m pytest $(PYTEST) -m "slow or not slow"

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PYTHON=$(CURDIR)/$(PY) .ci/typecheck

demo: install
	$(PY) -m benchmarks.demo

# Leaves .venv; to rebuild that too: rm -r .venv
clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +
