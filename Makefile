# The only list of commands. `make help` shows it.
.DEFAULT_GOAL := help
.PHONY: help run worker test test-faults lint fmt types bench bench-limiter bench-gates lock up down clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip --disable-pip-version-check --quiet
NATIVE := Cargo.toml Cargo.lock pyext/Cargo.toml pyext/pyproject.toml $(shell find pyext/src pyext/hopgate_limiter -name '*.rs' -o -name '*.py' -o -name '*.pyi')

# $(call need,COMMAND,what it is and how to get it)
need = command -v $(1) >/dev/null 2>&1 || { echo "hopgate needs $(2)" >&2; exit 1; }

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

# --- environments: one folder, what it holds is written beside it -----------------------

$(VENV)/.made:
	@$(call need,$(PYTHON),Python 3.11 or newer: install python3 (with venv))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hopgate needs Python 3.11 or newer; $(PYTHON) is older (set PYTHON=...)" >&2; exit 1; }
	@$(call need,cargo,Rust 1.88 or newer: see https://rustup.rs)
	@$(call need,cc,a C compiler: install gcc or clang)
	@$(PYTHON) -m venv $(VENV) || { echo "hopgate needs Python's venv module: install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.txt pyproject.toml
	@echo "Installing what the service needs ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.native: $(VENV)/.run $(NATIVE)
	@echo "Building the limiter (Rust, release) ..."
	@$(PIP) install --no-deps --no-build-isolation --force-reinstall ./pyext
	@touch $@

$(VENV)/.dev: $(VENV)/.native requirements/dev.txt
	@command -v pg_config >/dev/null 2>&1 || { echo "hopgate's tests need libpq's headers: install libpq-dev" >&2; exit 1; }
	@echo "Installing what tests, linters and benchmarks need ..."
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@echo "Installing what redirects are measured against ..."
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@touch $@

lock: $(VENV)/.dev ## Resolve the dependencies anew and write the lock files.
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --group build pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --extra services --group dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --extra services -c requirements/dev.txt pyproject.toml -o requirements/services.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --group bench -c requirements/dev.txt -o requirements/bench.txt

# --- the two commands -------------------------------------------------------------------

run: $(VENV)/.native ## Serve on 127.0.0.1:8000, embedded: no services needed.
	@$(BIN)/hopgate serve

test: $(VENV)/.dev ## Run all tests; they start their own PostgreSQL, Redis and RabbitMQ.
	@$(BIN)/python -m tests.servers
	@cargo test --quiet --workspace
	@$(BIN)/python -m pytest --quiet

test-faults: $(VENV)/.dev ## Break things under load, about an hour; writes tests/faults/REPORT.md.
	@$(BIN)/python -m tests.servers
	@$(BIN)/python -m tests.faults.report

# --- the rest ---------------------------------------------------------------------------

lint: $(VENV)/.dev ## Check style, types, the direction of imports, and docker-compose.yml.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --verbose >/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m mypy.stubtest hopgate_limiter --ignore-disjoint-bases
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml >/dev/null
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets --features python -- --deny warnings

fmt: $(VENV)/.dev ## Format everything.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@cargo fmt --all

bench: $(VENV)/.bench ## Measure redirects against other servers, about an hour; writes bench/RESULTS.md.
	@$(BIN)/python -m bench

bench-limiter: $(VENV)/.dev ## Measure the limiter beside others, in memory and through Redis, about half an hour.
	@$(BIN)/python -m bench.limiter.compare
	@$(BIN)/python -m bench.limiter.shared
	@$(BIN)/python -m bench.limiter.beside_governor
	@$(BIN)/python -m bench.limiter.four_processes

bench-gates: $(VENV)/.dev ## Check that nothing has become much slower, in ratios.
	@$(BIN)/python -m pytest --quiet bench --benchmark-enable --benchmark-disable-gc

up: ## Start the whole stack with Docker.
	docker compose up --build --detach --wait

down: ## Stop the stack; data stays in its volumes.
	docker compose down

clean: ## Remove everything that was built. Data stays.
	rm -rf $(VENV) target dist .mypy_cache .ruff_cache .hypothesis .benchmarks
