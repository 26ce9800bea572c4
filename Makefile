# Needs make and Python 3.11 or later. `make` lists what there is; every target installs what it needs into
# .venv, once. ARGS goes to the command: make test ARGS='-k segments -x'.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ARGS ?=
# How many processes run the tests: 0 runs them here, in order.
JOBS ?= 2
# Which Python makes .venv, when the first of python3.11, python3.12, python3.13, python3 is not the one.
PYTHON ?=
export PYTHON

bin := .venv/bin
pytest := $(bin)/python -m pytest

.PHONY: help setup setup-run run test faults bench lint format types lock wheel clean clean-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: ## install everything that development needs into .venv
	@.ci/setup dev

setup-run:
	@.ci/setup local

run: setup-run ## run it all on this machine: embedded AWS, devices, consumer (ARGS='--help')
	@$(bin)/stream-app run $(ARGS)

test: setup ## unit, contract and end-to-end tests (ARGS='-k name -x', JOBS=2)
	@$(pytest) -n $(JOBS) --dist loadfile $(ARGS)

faults: setup ## the slow tests: whatever is killed or hangs, failing services, fuzzers at length (JOBS=2)
	@$(pytest) tests/faults -n $(JOBS) --dist loadfile $(ARGS)

bench: setup ## how fast it is on this machine
	@$(pytest) tests/bench -s $(ARGS)

lint: setup ## style, format, types, import rules and templates; all are run, whichever fails
	@failed=; check() { printf '%s\n' "-- $$*"; "$(bin)/$$@" || failed="$$failed $$1"; }; \
	check ruff check; \
	check ruff format --check; \
	check mypy; \
	check lint-imports; \
	check cfn-lint infra/*.yaml; \
	[[ -z $$failed ]] || { echo "lint: failed:$$failed"; exit 1; }

format: setup ## put the code into its format, mend what ruff can mend
	@$(bin)/ruff check --fix --exit-zero
	@$(bin)/ruff format

types: setup ## mypy --strict
	@$(bin)/mypy $(ARGS)

lock: ## pin all versions again in constraints.txt (ARGS=--upgrade for newer ones)
	@.ci/lock $(ARGS)

wheel: setup ## build dist/*.whl
	@$(bin)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove what was built, run or cached; .venv stays (clean-venv removes it)
	@rm -rf build dist .stream-app .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find stream_app anomaly tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv:
	@rm -rf .venv
