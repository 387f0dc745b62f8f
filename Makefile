# Every verb sets up what it needs in .venv, once, and again when pyproject.toml or the C code changes. `make` alone
# lists the verbs.

# python3, or else the newest that TensorFlow is built for. make PYTHON=... chooses another.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

BIN := .venv/bin
NATIVE := service/engine/native/_forward.abi3.so service/_counts.abi3.so service/_heads.abi3.so
DATA ?= ../shared/data/ml-latest-small
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test lint train bench clean

help: ## List the verbs
	@awk -F ': .*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

serve: .venv/.ready-serve ## Serve model_artifacts/din on port 8000; ARGS="--port 9000" adds flags
	@exec $(BIN)/dinserve serve $(ARGS)

test: .venv/.ready-dev ## Run every test with coverage; ARGS="-m unit --no-cov" chooses
	$(BIN)/python -m pytest --cov=service $(ARGS)

lint: .venv/.ready-dev ## Check style, types, Dockerfile and compose file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

train: .venv/.ready-train ## Train on DATA=folder and write the next version of model_artifacts/din
	@exec $(BIN)/dinserve train --data $(DATA) --out model_artifacts/din $(ARGS)

bench: .venv/.ready-bench ## Measure throughput and latency, into benchmarks/RESULTS.md; ARGS="--quick" for a look
	@exec $(BIN)/python -m benchmarks.run $(ARGS)

clean: ## Remove the environment, caches and build leftovers
	rm -rf .venv build dist *.egg-info $(NATIVE) .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find service tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.ready-serve: WHAT := .
.venv/.ready-dev: WHAT := .[dev]
.venv/.ready-train: WHAT := .[train]
.venv/.ready-bench: WHAT := .[bench]
.venv/.ready-%: .venv/.made pyproject.toml service/engine/native/forward.c service/counts.c service/heads.c
	@echo "Installing $* packages into .venv (TensorFlow is large: the first time takes a minute or more)"
	@rm -f $(NATIVE)
	@$(INSTALL) --quiet --editable '$(WHAT)'
	@$(BIN)/python -c 'import service.engine.native._forward, service._counts, service._heads' 2>/dev/null || { \
		$(INSTALL) --verbose --no-deps --editable . >.venv/native.log 2>&1; echo "$$NOT_BUILT" >&2; }
	@touch $@

INSTALL = $(BIN)/python -m pip install --disable-pip-version-check
# pip does not say that an optional extension failed, unless asked to tell everything.
export NOT_BUILT := The native engine could not be built: TensorFlow computes instead, slower. .venv/native.log says why; \
	for want of a C compiler or Python's headers, install them (apt install gcc python3-dev, or xcode-select --install) \
	and make clean.

# Asked every time: the interpreter under an environment can be upgraded away, and a moved or copied checkout would run
# the code of the old place. An environment that somebody else made here is used as it is.
USABLE = $(BIN)/pip --version && $(BIN)/python -c '$(SUPPORTED)' && { ! [ -e $@ ] || [ "$$(cat $@)" = '$(CURDIR)' ]; }
.venv/.made: FORCE
	@{ $(USABLE); } >/dev/null 2>&1 || { \
		'$(PYTHON)' -c '$(SUPPORTED)' 2>/dev/null || { \
			echo "dinserve needs Python 3.11, 3.12 or 3.13: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
		'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "$(PYTHON) cannot make virtual environments: install its venv package (apt install python3-venv)" >&2; exit 1; }; \
		echo "Making .venv with $$('$(PYTHON)' --version)"; \
		rm -rf .venv && '$(PYTHON)' -m venv .venv; }
	@[ -e $@ ] || echo '$(CURDIR)' > $@

FORCE:
