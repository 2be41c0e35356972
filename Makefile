# Every target sets up what it needs in .venv; nothing installed by hand is used.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-api test-fleet test-slow test-vllm check audit lock models bench clean help

help:           ## List the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "Apportion needs Python 3.11 to 3.13: make PYTHON=python3.12 ..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.runtime     ## Run the main job: search, prove and export a plan on the embedded models
	$(BIN)/apportion demo

test: $(VENV)/.development ## Pass the tests
	$(BIN)/python -m pytest -m "not slow and not vllm and not fleet and not fuzz" -n auto --maxprocesses 4 --dist loadfile

test-fleet: $(VENV)/.development ## Model servers started, killed, frozen and swapped, on the torch engine: three minutes
	$(BIN)/python -m pytest -m fleet

test-slow: $(VENV)/.development ## Kill tests and other minutes-long suites
	$(BIN)/python -m pytest -m slow

test-api: $(VENV)/.development ## Ten thousand requests generated from the OpenAPI document: a quarter of an hour
	$(BIN)/python -m pytest -m fuzz -s tests/api/test_openapi.py

test-vllm: $(VENV)/.development ## The fleet with real vLLM on the processor: builds .vllm-venv (2.5 GB), then ten minutes
	@nice -n 10 tests/vllm/build_environment.sh .vllm-venv $(PYTHON) || \
	  echo "vLLM's CPU build could not be installed (see above); its tests are skipped"
	nice -n 10 $(BIN)/python -m pytest -m vllm -s -rs tests/vllm

check: $(VENV)/.development ## Lint, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: constraints.txt ## Known vulnerabilities of the pinned versions; needs the advisories of PyPI
	test -x .audit-venv/bin/python || $(PYTHON) -m venv .audit-venv
	.audit-venv/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.audit-venv/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

lock: $(VENV)/.development ## Write constraints.txt anew from what is installed
	( echo "# Exact versions that a fresh machine resolves to: make lock writes this file anew from the installed environment."; \
	  $(PIP) freeze --all --exclude-editable | grep -v '^pip==' | sed 's/^torch==\(.*\)+.*/torch==\1/' ) > constraints.txt.new
	mv constraints.txt.new constraints.txt

models: $(VENV)/.development ## Train the embedded models anew from a seed (an hour or so on two cores)
	$(BIN)/python -m env.embedded.train --all

bench: $(VENV)/.runtime    ## Engine throughput against HF generate, as JSON
	$(BIN)/python -m benchmarks.engine_throughput

clean:          ## Remove the environment and what commands wrote
	rm -rf $(VENV) .audit-venv .vllm-venv out .apportion build *.egg-info
