# `make demo` and `make test` need Python 3.12 or newer and a package registry, no more.

# The first of these that runs and is new enough makes .venv. PYTHON=... names another;
# to change the Python of a .venv that is there, `make clean` first.
PYTHONS := $(or $(PYTHON),python3.12 python3.13 python3.14 python3 python)

RUN := .venv/bin/python -m
READY := .venv/.ready

.PHONY: help demo test lint format wheel clean check-python
.DEFAULT_GOAL := help

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1	/p' Makefile

demo: $(READY)  ## fit a small model from end to end
	@$(RUN) probkit demo

# What FAST=1 leaves out: whole programs, killed processes, and fits that take long.
FAST_TESTS := tests/model tests/linalg tests/gp tests/plots tests/test_layout.py \
	tests/test_bad_input.py tests/test_datasets.py \
	tests/method/test_iterative.py tests/method/test_minibatch.py \
	tests/models/pde/test_pde_problem.py tests/models/pde/test_pde_bad_input.py \
	tests/models/sbl/test_sbl_bad_input.py \
	tests/models/gp/test_gp_bad_input.py tests/models/gp/test_gp_checks.py

test: lint  ## everything that must pass: lint, types, tests; FAST=1 for the quick ones
	$(RUN) pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  $(if $(FAST),$(FAST_TESTS))

lint: $(READY)  ## ruff and mypy, changing nothing
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

format: $(READY)  ## put the code into its standard form
	$(RUN) ruff check --fix
	$(RUN) ruff format

wheel: $(READY)  ## build the source archive, and the wheel from it, into dist/
	@rm -rf build dist
	$(RUN) build --quiet
	@rm -rf build

clean:  ## remove .venv, the caches and what was built
	rm -rf .venv .jax-cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# Each Python is tried, not looked up: a version manager's stand-in may be there and fail.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 12))
VERSION := import platform; print(platform.python_version())
define FIND_PYTHON
for python in $(PYTHONS); do \
  "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && break; \
  version=$$("$$python" -c '$(VERSION)' 2>/dev/null) && \
    found="$$found$${found:+, }$$python = $$version"; \
  python=; \
done; \
if [ -z "$$python" ]; then \
  echo "probkit needs Python 3.12 or newer; found $${found:-none}." \
    "Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
fi
endef

# A .venv that has lost its Python, or was never finished, is rebuilt from scratch. Any
# other is kept and brought up to date.
$(READY): pyproject.toml setup.py constraints.txt | $(if $(PYTHON),check-python)
	@.venv/bin/python -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null && exit; \
	$(FIND_PYTHON); "$$python" -m venv --clear .venv
	@echo "Setting up .venv: a few minutes the first time, nothing once it is up to date."
	@$(RUN) pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

# A Python that was named and cannot serve is worth a word even when .venv is ready.
check-python:
	@$(FIND_PYTHON)
