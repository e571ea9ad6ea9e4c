# KATO's commands. `make serve` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORE := $(wildcard core/*.cpp core/*.hpp core/CMakeLists.txt)

.PHONY: help install serve check test format lock bench accuracy sanitize twin chaos cluster faults copy clean
help:
	@echo "make serve     set up and start KATO on port 8000 with its data in ./kato-data"
	@echo "make test      set up and run every test (with coverage)"
	@echo "make check     ruff, mypy --strict, import-linter"
	@echo "make format    let ruff format and fix"
	@echo "make bench     all benchmarks: a table and benchmarks/results/*.json"
	@echo "make accuracy  predictions on real data beside the reference figures"
	@echo "make twin      compiled index == readable twin on 1,000,000 random pairs"
	@echo "make sanitize  the index tests under address and undefined-behaviour sanitizers"
	@echo "make chaos     1,000 kill -9 cycles under load"
	@echo "make cluster   two instances x two workers: 10,000 visibility trials, 200 recorded histories"
	@echo "make faults    instances, workers, Redis and PostgreSQL killed under load, 200 cycles"
	@echo "make copy      100,000 patterns from store to store and back, through 40 kill -9"

install: $(STAMP)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python requirements.lock pyproject.toml $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

serve: install
	$(BIN)/kato serve

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --cov

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --no-emit-index-url --no-emit-find-links --extra dev --strip-extras \
		--output-file requirements.lock pyproject.toml

bench: install
	$(BIN)/python benchmarks/run.py

accuracy: install
	$(BIN)/python benchmarks/accuracy.py

twin: install
	KATO_TWIN_PAIRS=1000000 $(BIN)/python -m pytest tests/unit/core -k twin --timeout 3600

sanitize: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash core/sanitize.sh

chaos: install
	KATO_KILL_CYCLES=1000 $(BIN)/python -m pytest tests/chaos --timeout 7200

copy: install
	KATO_COPY_PATTERNS=100000 KATO_COPY_KILLS=20 $(BIN)/python -m pytest tests/chaos/test_copy.py --timeout 7200

cluster: install
	KATO_VISIBILITY_TRIALS=10000 KATO_HISTORIES=200 $(BIN)/python -m pytest tests/chaos/test_cluster.py

# 200 cycles with breakers that stay open for a second, then 20 as they are by default.
faults: install
	KATO_FAULT_CYCLES=200 $(BIN)/python -m pytest tests/chaos/test_faults.py
	KATO_FAULT_CYCLES=20 KATO_FAULT_DEFAULTS=1 $(BIN)/python -m pytest tests/chaos/test_faults.py

clean:
	rm -rf $(VENV) build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
