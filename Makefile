# Everything that is done to this project more than once. CI does nothing else: see .ci/run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What the compiled module depends on; the Python files are used where they are.
RUST := Cargo.toml Cargo.lock pyproject.toml $(shell find crates -name '*.rs' -o -name Cargo.toml -o -name build.rs)

# pyo3's build script reruns when this changes: one value for every target keeps the caches warm.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

.DEFAULT_GOAL := help
.PHONY: help setup build demo demo-celery test test-rust loom fuzz test-python test-celery test-celery-short \
	test-celery-original bench bench-celery oracle stubs lint fmt clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.setup ## make .venv and install the pinned tools into it

$(VENV)/.setup: requirements-dev.txt requirements-test.txt
	@echo "setup: the tools, into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@

build: $(VENV)/.built ## compile the extension in release mode, into .venv
	@# As an installed package is: otherwise, where bytecode is not written, every child would compile it anew.
	@$(BIN)/python -m compileall -q python/billiard

$(VENV)/.built: $(RUST) $(VENV)/.setup
	@echo "build: the release extension (the first time takes a minute)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) .ci/quietly $(BIN)/maturin develop --release --quiet
	@touch $@

CELERY_NEWEST := 5.7.0

demo-celery: build ## lose nothing to a killer of processes, with Celery over Redis
	@$(BIN)/python tests/celery/run.py --make --versions $(CELERY_NEWEST)
	@build/celery/$(CELERY_NEWEST)/ours/bin/python examples/celery_app/demo.py

demo: build ## count what is in the standard library, in a pool under attack
	@$(BIN)/python examples/census.py

test: test-rust test-python test-celery-short ## run all tests, on every Python that is found; Celery in short

test-rust: setup ## run the Rust tests
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --cargo-quiet -p billiard --features failpoints; \
	else timeout 900 cargo test --quiet -p billiard --features failpoints --all-targets; fi
	@timeout 900 cargo test --quiet -p billiard --doc

loom: setup ## try every interleaving of the lock-free protocols
	@RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom timeout 900 \
		cargo test --quiet --release -p billiard --lib interleavings

# The fuzzer needs what only a nightly compiler admits to; the stable one does it when it is told to.
FUZZ_SECONDS ?= 20
FUZZ := crates/billiard/fuzz
FUZZ_TARGETS = $(basename $(notdir $(wildcard $(FUZZ)/targets/*.rs)))

fuzz: ## feed every decoder what no peer means, FUZZ_SECONDS each; needs `cargo install cargo-fuzz` and, at first, crates.io
	@cargo fuzz --version >/dev/null 2>&1 || { echo "fuzz: first run: cargo install cargo-fuzz" >&2; exit 2; }
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzz: $$target, $(FUZZ_SECONDS) seconds"; \
		mkdir -p target/fuzz/corpus/$$target; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir $(FUZZ) --target-dir target/fuzz/build $$target \
			target/fuzz/corpus/$$target $(FUZZ)/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) \
			-timeout=10 -rss_limit_mb=1024 -verbosity=0 || exit 1; \
	done

test-python: build oracle ## run the Python tests, on every Python that is found (choose: PYTHONS="python3.10 …")
	@.ci/test-pythons $(PYTHONS)

test-celery: build ## run Celery's workers and its own tests on this package, with each Celery (choose: CELERY="--modes fair …")
	@$(BIN)/python tests/celery/run.py $(CELERY)

test-celery-short: build ## the same with the newest Celery only, in a minute or two
	@$(BIN)/python tests/celery/run.py --short

test-celery-original: build ## run the tests with Celery on the original package: are the tests right?
	@$(BIN)/python tests/celery/run.py --original $(CELERY)

bench: build oracle ## measure against the standard library and the original (choose: BENCH="throughput …")
	@$(BIN)/python benches/compare.py $(BENCH)

bench-celery: build ## measure Celery's workers on this package and on the original (choose: BENCH="celery_rate …")
	@$(BIN)/python tests/celery/run.py --make --versions $(CELERY_NEWEST)
	@$(BIN)/python tests/celery/run.py --make --versions $(CELERY_NEWEST) --original
	@$(BIN)/python benches/compare.py --celery --subjects ours,original --output benches/results/celery.json \
		--python $(CURDIR)/build/celery/$(CELERY_NEWEST)/ours/bin/python \
		--original $(CURDIR)/build/celery/$(CELERY_NEWEST)/original/bin/python $(BENCH)

oracle: .oracle/.ready ## install the original package into an environment of its own

.oracle/.ready: requirements-oracle.txt $(VENV)/.setup
	@echo "oracle: the original, into .oracle"
	@test -x .oracle/bin/python || $(BIN)/python -m venv .oracle
	@.oracle/bin/pip install --quiet -r requirements-oracle.txt
	@touch $@

stubs: setup ## write the type stub of the extension anew, from its source
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) .ci/quietly $(BIN)/maturin generate-stubs --quiet --features stubs --out target/stubs
	@cp target/stubs/billiard/_billiard.pyi python/billiard/_billiard.pyi

lint: build ## check format, lints and types
	@cargo fmt --all --check
	@cargo fmt --manifest-path $(FUZZ)/Cargo.toml --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary

fmt: setup ## bring everything into format
	@cargo fmt --all
	@cargo fmt --manifest-path $(FUZZ)/Cargo.toml
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet

clean: ## remove what was built; the environments too
	@rm -rf target build dist $(VENV) .oracle .mypy_cache .ruff_cache .pytest_cache
	@find python -name '*.so' -delete
