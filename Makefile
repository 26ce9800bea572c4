# Needs make and Python 3.11 or later. `make` lists what there is; every target installs what it needs into
# .venv, once. ARGS goes to the command: make test ARGS='-k segments -x'.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ARGS ?=
# How many processes run the tests: 0 runs them here, in order.
JOBS ?= 2
# Minutes after which `make explore` starts no further test.
MINUTES ?= 60
# Which Python makes .venv, when the first of python3.11, python3.12, python3.13, python3 is not the one.
PYTHON ?=
export PYTHON

bin := .venv/bin
# The slowest 20 tests are reported. A worker that is out of tests takes over some of the other's.
pytest := $(bin)/python -m pytest --durations=20 --durations-min=1
parallel := -n $(JOBS) --dist worksteal

.PHONY: help setup setup-run run test test-second faults explore soak bench lint format types lock wheel clean clean-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## install everything that development needs into .venv
	@.ci/setup dev

setup-run:
	@.ci/setup local

run: setup-run ## run the whole application on this machine: embedded AWS, devices, consumer (ARGS='--help')
	@$(bin)/stream-app run $(ARGS)

test: setup ## the first tier: unit and contract tests (ARGS='-k name -x', JOBS=2)
	@$(pytest) -m first $(parallel) $(ARGS)

test-second: setup ## the second tier: end-to-end, exhaustive and process tests (JOBS=2)
	@$(pytest) -m second $(parallel) $(ARGS)

faults: setup ## fault tests: killed or hanging processes, failing services (JOBS=2)
	@$(pytest) tests/faults -m faults -n $(JOBS) --dist loadfile $(ARGS)

explore: setup ## hypothesis tests with new examples; none starts after an hour (MINUTES=60, JOBS=2)
	@HYPOTHESIS_PROFILE=explore EXPLORE_MINUTES=$(MINUTES) $(pytest) -m hypothesis --timeout 1500 $(parallel) $(ARGS)

soak: setup ## long fuzzer runs: millions of inputs (JOBS=2)
	@$(pytest) tests/soak -m soak $(parallel) $(ARGS)

bench: setup ## throughput and memory on this machine
	@$(pytest) tests/bench -m bench -s $(ARGS)

lint: setup ## style, format, types, import rules, unused code and templates; runs all, even after a failure
	@failed=; check() { printf '%s\n' "-- $$*"; "$(bin)/$$@" || failed="$$failed $$1"; }; \
	check ruff check; \
	check ruff format --check; \
	check mypy; \
	check lint-imports; \
	check vulture --config .ci/unused.toml; \
	check cfn-lint infra/*.yaml; \
	[[ -z $$failed ]] || { echo "lint: failed:$$failed"; exit 1; }

format: setup ## format the code and apply ruff's automatic fixes
	@$(bin)/ruff check --fix --exit-zero
	@$(bin)/ruff format

types: setup ## mypy --strict
	@$(bin)/mypy $(ARGS)

lock: ## pin all versions again in constraints.txt (ARGS=--upgrade for newer ones)
	@.ci/lock $(ARGS)

wheel: setup ## build dist/*.whl
	@$(bin)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove build, run and cache files; keeps .venv (clean-venv removes it)
	@rm -rf build dist .stream-app .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find stream_app anomaly tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv:
	@rm -rf .venv
