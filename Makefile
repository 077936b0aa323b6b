# `make demo` and `make test` are all a newcomer needs. Both set up what they need first.

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
PY := .venv/bin/python
PYTHONS := python3.11 python3.12 python3.13
TESTS ?=
TIMES ?= 4
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest test-environments test-long fuzz lint docs bench system clean .venv

help:  ## show the targets
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.venv: .venv/ready  ## the virtual environment, with the `nsm` command in it

.venv/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@echo "Setting up .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch .venv/ready

system:  ## as root: the system packages that demo and tests use, where they are missing
	@tools/system_packages

demo: .venv/ready system  ## a whole mesh on this machine, with real packets
	@.venv/bin/nsm demo
	@.venv/bin/nsm demo heal

test: .venv/ready system  ## the suite, by WORKERS=3 processes (much of it waits); the same examples in every run
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-newest: .venv/ready system  ## the suite with the newest versions, sniffio and trio beside
	@PYTHON=$(PYTHON) WORKERS=$(WORKERS) tools/test_with newest $(TESTS)

test-environments: test-newest  ## the same, and again with the lowest versions
	@PYTHON=$(PYTHON) WORKERS=$(WORKERS) tools/test_with lowest $(TESTS)

test-long: .venv/ready system  ## what takes longer: matrices, chaos; other environments, other Pythons
	@$(PY) -m pytest -m long $(TESTS)
	@$(MAKE) --no-print-directory test-environments
	@for p in $(PYTHONS); do \
		if $(PY) -c "import sys; sys.exit('python%d.%d' % sys.version_info[:2] != '$$p')"; then echo "== $$p: \`make test\` uses it"; \
		elif ! $$p -c 'import venv, ensurepip' 2>/dev/null; then echo "== $$p: skipped, it is not installed with venv"; \
		else tools/test_with $$p $(TESTS) || exit 1; fi; done

fuzz: .venv/ready system  ## properties with random examples; SEED=N repeats a run, TESTS=... chooses, TIMES=N draws more
	@seed=$${SEED:-$$RANDOM$$RANDOM}; echo "== make fuzz SEED=$$seed TIMES=$(TIMES)"; \
	NSM_FUZZ=$(TIMES) $(PY) -m pytest --long -m hypothesis --hypothesis-profile=fuzz --hypothesis-seed=$$seed $(TESTS)

lint: .venv/ready  ## style, types, import rules
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

docs: .venv/ready  ## write the generated pages of docs anew
	@$(PY) tools/generate_reference.py
	@$(PY) tools/heal_table.py

bench: .venv/ready system  ## all benchmarks; prints tables
	@$(PY) -m benchmarks

clean:  ## remove what the targets above made
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
