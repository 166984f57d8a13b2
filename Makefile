# The only list of commands. `make help` shows it.
.DEFAULT_GOAL := help
.PHONY: help run services otel sentry logo remote test test-unit test-python test-rust test-long test-faults lint lint-python lint-rust fmt bench bench-limiter bench-gates wheels lock up down clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEELS := $(VENV)/wheels
PIP := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip --disable-pip-version-check --quiet
# Most tests wait for servers, so more of them run at once than there are processors.
WORKERS ?= 5
PYTEST := $(BIN)/python -m pytest --quiet
SHARED := --dist=loadgroup --no-loadscope-reorder --numprocesses
# The files that have tests marked `alone`: tests/conftest.py sees to it that there are no others.
ALONE := $(shell grep --recursive --files-with-matches --include='test_*.py' 'mark\.alone' tests)
# $(call alone_first,WORKERS ALONE,WORKERS,WHICH,OPTIONS): the tests that need a processor, then the others.
# The former wait most of the time. Meanwhile all tests are imported, or each worker would compile all of them.
define alone_first
failed=0; \
	$(IDLE) $(PYTEST) --collect-only >/dev/null 2>&1 & \
	$(PYTEST) $(4) $(SHARED) $(1) -m "alone and $(3)" $(ALONE) || failed=1; \
	$(PYTEST) $(4) $(SHARED) $(2) -m "not alone and $(3)" || failed=1; \
	wait; exit $$failed
endef
# What compiles takes the processor that servers under test leave, when both run at once.
IDLE := nice -n 15
# Hundreds of processes import the same modules: compile them once, also where the environment disables it.
export PYTHONDONTWRITEBYTECODE :=
NATIVE := Cargo.toml Cargo.lock $(addprefix pyext/,Cargo.toml build.rs pyproject.toml front/Cargo.toml front/pyproject.toml) $(shell find $(addprefix pyext/,src hopgate_limiter front/src front/hopgate_front) -name '*.rs' -o -name '*.lua' -o -name '*.py' -o -name '*.pyi')

# $(call need,COMMAND,what it is and how to get it)
need = command -v $(1) >/dev/null 2>&1 || { echo "hopgate needs $(2)" >&2; exit 1; }
# Cargo prints `cargo 1.88.0 (...)`; the version that pyproject and Cargo.toml ask for.
need_rust = $(call need,cargo,Rust 1.88 or newer: see https://rustup.rs); \
	cargo --version | awk -F'[ .]' '{ exit !($$2 > 1 || ($$2 == 1 && $$3 >= 88)) }' \
	|| { echo "hopgate needs Rust 1.88 or newer; $$(cargo --version) is older: run rustup update" >&2; exit 1; }

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

# --- environments: one folder, what it holds is written beside it -----------------------

$(VENV)/.made:
	@$(call need,$(PYTHON),Python 3.11 or newer: install python3 (with venv))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hopgate needs Python 3.11 or newer; $(PYTHON) is older (set PYTHON=...)" >&2; exit 1; }
	@$(need_rust)
	@$(call need,cc,a C compiler: install gcc or clang)
	@$(PYTHON) -m venv $(VENV) || { echo "hopgate needs Python's venv module: install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.txt pyproject.toml
	@echo "Installing what the service needs ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.wheel: $(VENV)/.run $(NATIVE)
	@echo "Building the limiter and the front (Rust, release) ..."
	@rm -rf $(WHEELS)
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(WHEELS) ./pyext ./pyext/front
	@touch $@

$(VENV)/.native: $(VENV)/.wheel
	@$(PIP) install --no-deps --no-index --force-reinstall $(WHEELS)/*.whl
	@touch $@

$(VENV)/.services: $(VENV)/.native requirements/services.txt
	@command -v pg_config >/dev/null 2>&1 || { echo "hopgate's driver of PostgreSQL needs libpq's headers: install libpq-dev" >&2; exit 1; }
	@echo "Installing the drivers of PostgreSQL, Redis and RabbitMQ ..."
	@$(PIP) install --require-hashes -r requirements/services.txt
	@touch $@

$(VENV)/.otel: $(VENV)/.services requirements/otel.txt
	@echo "Installing what traces need ..."
	@$(PIP) install --require-hashes -r requirements/otel.txt
	@touch $@

$(VENV)/.sentry: $(VENV)/.services requirements/sentry.txt
	@echo "Installing what reports of errors need ..."
	@$(PIP) install --require-hashes -r requirements/sentry.txt
	@touch $@

$(VENV)/.logo: $(VENV)/.native requirements/logo.txt
	@echo "Installing what QR codes with a logo need ..."
	@$(PIP) install --require-hashes -r requirements/logo.txt
	@touch $@

$(VENV)/.remote: $(VENV)/.native requirements/remote.txt app/client/pyproject.toml
	@echo "Installing what commands need for a gateway elsewhere ..."
	@$(PIP) install --require-hashes -r requirements/remote.txt
	@$(PIP) install --no-deps --no-build-isolation --editable ./app/client
	@touch $@

$(VENV)/.tools: $(VENV)/.run requirements/dev.txt app/client/pyproject.toml
	@command -v pg_config >/dev/null 2>&1 || { echo "hopgate's tests need libpq's headers: install libpq-dev" >&2; exit 1; }
	@echo "Installing what tests, linters and benchmarks need ..."
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable ./app/client
	@touch $@

# What the dialects are tested with, as it is published. pip leaves out the old requests and urllib3 that two of
# the clients ask for: they run with those that the tests have.
$(VENV)/.clients: $(VENV)/.tools requirements/clients.txt tests/clients/package-lock.json
	@echo "Installing clients of other shorteners ..."
	@rm -rf $(VENV)/clients
	@$(PIP) install --require-hashes --no-deps --target $(VENV)/clients -r requirements/clients.txt
	@if command -v npm >/dev/null 2>&1; then npm ci --prefix tests/clients --ignore-scripts --no-audit --no-fund --silent; else echo "npm is missing: tests with clients in JavaScript are skipped"; fi
	@touch $@

$(VENV)/.dev: $(VENV)/.native $(VENV)/.tools
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@echo "Installing what redirects are measured against ..."
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev requirements/fuzz.txt
	@echo "Installing what makes requests from the OpenAPI document ..."
	@$(PIP) install --require-hashes -r requirements/fuzz.txt
	@touch $@

$(VENV)/.release: $(VENV)/.dev requirements/release.txt
	@echo "Installing what builds wheels for other machines ..."
	@$(PIP) install --require-hashes -r requirements/release.txt
	@touch $@

lock: $(VENV)/.dev ## Resolve the dependencies anew and write the lock files.
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --group build pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --extra services --extra otel --extra sentry --group dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --extra services -c requirements/dev.txt pyproject.toml -o requirements/services.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --extra services --extra otel -c requirements/dev.txt pyproject.toml -o requirements/otel.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --extra services --extra sentry -c requirements/dev.txt pyproject.toml -o requirements/sentry.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --extra logo -c requirements/dev.txt pyproject.toml -o requirements/logo.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-emit-package hopgate-limiter --no-emit-package hopgate-front --no-emit-package hopgate-client --extra remote -c requirements/dev.txt pyproject.toml -o requirements/remote.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --group bench -c requirements/dev.txt -o requirements/bench.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --group fuzz -c requirements/dev.txt -o requirements/fuzz.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-deps --group clients -o requirements/clients.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --group release -c requirements/dev.txt -o requirements/release.txt

# --- the two commands -------------------------------------------------------------------

run: $(VENV)/.native ## Serve on 127.0.0.1:8000, embedded: no services needed.
	@$(BIN)/hopgate serve

services: $(VENV)/.services ## Install what PostgreSQL, Redis and RabbitMQ need; then set their URLs.

otel: $(VENV)/.otel ## Install what traces need; then set OTEL_EXPORTER_OTLP_ENDPOINT.

sentry: $(VENV)/.sentry ## Install what reports of errors to Sentry need; then set SENTRY_DSN.

logo: $(VENV)/.logo ## Install what QR codes with a logo need; then set HOPGATE_QR_LOGO.

remote: $(VENV)/.remote ## Install what commands need for a gateway elsewhere; then set HOPGATE_URL and HOPGATE_KEY.

test: test-rust test-python ## Run all tests; they start their own PostgreSQL, Redis and RabbitMQ.

# Cargo would look for a part in make's jobs that it is not given, and warn of that.
test-rust:
	@$(need_rust)
	@MAKEFLAGS= $(IDLE) cargo test --quiet --workspace

test-python: $(VENV)/.dev $(VENV)/.clients
	@$(BIN)/python -m tests.servers
	@$(call alone_first,$(if $(filter 1,$(WORKERS)),1,3),$(WORKERS),not long)

test-unit: $(VENV)/.dev ## Run the tests that need no server: under 30 seconds.
	@$(PYTEST) $(SHARED) 2 tests/unit

test-long: $(VENV)/.fuzz ## Run properties with thirty times the examples, and tests of minutes.
	@$(BIN)/python -m tests.servers
	@HOPGATE_FUZZ_S=150 $(IDLE) cargo test --quiet --package hopgate-front fuzz -- --test-threads=1
	@export HYPOTHESIS_PROFILE=long; $(call alone_first,1,2,(hypothesis or long),--timeout=3600 -o faulthandler_timeout=4000)

test-faults: $(VENV)/.dev ## Break things under load, about an hour; writes tests/faults/REPORT.md.
	@$(BIN)/python -m tests.servers
	@$(BIN)/python -m tests.faults.report

# --- the rest ---------------------------------------------------------------------------

lint: lint-python lint-rust ## Check style, types, the direction of imports, and docker-compose.yml.

lint-python: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --verbose >/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m tests.words
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml >/dev/null

lint-rust:
	@cargo fmt --all --check
	@$(IDLE) cargo clippy --quiet --workspace --all-targets -- --deny warnings
	@$(IDLE) cargo clippy --quiet --workspace --all-targets --features python -- --deny warnings

fmt: $(VENV)/.dev ## Format everything.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@cargo fmt --all

bench: $(VENV)/.bench ## Measure redirects against other servers, about an hour; writes bench/RESULTS.md.
	@$(BIN)/python -m bench

bench-limiter: $(VENV)/.bench ## Measure the limiter beside others, in memory and through Redis, about half an hour.
	@$(BIN)/python -m bench.limiter.compare
	@$(BIN)/python -m bench.limiter.shared
	@$(BIN)/python -m bench.limiter.beside_governor
	@$(BIN)/python -m bench.limiter.four_processes
	@$(BIN)/python -m bench.limiter.frameworks

bench-gates: $(VENV)/.dev ## Check that nothing has become much slower, in ratios.
	@$(PYTEST) bench --benchmark-enable --benchmark-disable-gc

# The limiter is built for glibc and musl, x86-64 and ARM64: Rust's target, and what a wheel for it may assume.
TARGETS := x86_64-unknown-linux-gnu/manylinux_2_17 aarch64-unknown-linux-gnu/manylinux_2_17 x86_64-unknown-linux-musl/musllinux_1_2 aarch64-unknown-linux-musl/musllinux_1_2

wheels: $(VENV)/.release ## Build the wheels of the limiter and the client for PyPI into dist/.
	@rm -rf dist
	@$(BIN)/maturin sdist --manifest-path pyext/Cargo.toml --out dist
	@cd pyext && for target in $(TARGETS); do \
		rustup --quiet target add $${target%%/*} || { echo "hopgate's wheels need Rust's target $${target%%/*}: see rustup target add" >&2; exit 1; }; \
		PATH="$(CURDIR)/$(BIN):$$PATH" maturin build --release --strip --zig --target $${target%%/*} --compatibility $${target##*/} --out ../dist || exit 1; \
	done
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist app/client
	@$(BIN)/twine check --strict dist/*

up: ## Start the whole stack with Docker.
	docker compose up --build --detach --wait

down: ## Stop the stack; data stays in its volumes.
	docker compose down

clean: ## Remove everything that was built. Data stays.
	rm -rf $(VENV) target dist .mypy_cache .ruff_cache .hypothesis .benchmarks
