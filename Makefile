# Everything starts here: `make demo` and `make test` need nothing but Python 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test check bench clean system-parts
help:
	@echo "make demo    install, then a made patient through the running node; prints the verdict"
	@echo "make test    install with the tools, then all tests (ARGS='-k margin' for some)"
	@echo "make check   lint, format, types, import contracts"
	@echo "make bench   all benchmarks (ARGS=margin for one); writes docs/benchmarks.md"
	@echo "make clean   remove what the above made, the environment too"

demo: $(VENV)/.installed
	$(BIN)/marginwatch demo $(ARGS)

# Two workers: linear algebra with threads of its own in each would only wait for the other's.
test: $(VENV)/.installed-dev system-parts
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/all.py $(ARGS)

# What the system tests drive; without it only they skip.
system-parts:
	@.ci/system-parts

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || (.ci/system-parts python3-venv && $(PYTHON) -m venv --clear $(VENV))

# torch first and at its exact version, so that no other range is ever resolved.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing Marginwatch into $(VENV); the first time this takes some minutes."
	$(PIP) install "$$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist out demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
