# make install | test | test-all | lint | demo | demo-wasm | clean
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
FOR_WASM := $(VENV)/.installed-for-wasm
PIP := $(PY) -m pip install --quiet --constraint constraints.txt

.PHONY: install install-for-tests test test-all lint demo demo-wasm clean

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

# A page that runs a model in the browser, at http://127.0.0.1:$(PORT)/demo/; with SERVE=0 it is only made.
SERVE ?= 1
PORT ?= 8000
demo-wasm: $(FOR_WASM)
	$(PY) -m benchmarks.demo_wasm --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve)

# What generates and checks code for other machines; not torch.
$(FOR_WASM): $(STAMP)
	$(PIP) --no-build-isolation --editable ".[$(EXTRAS),tvm,cross]"
	@touch $(FOR_WASM)

# Leaves .venv; to rebuild that too: rm -r .venv
clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +
