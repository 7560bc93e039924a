# Everything runs from a fresh clone with python3, its venv module, and make.
#   make demo     install into .venv and run the main job: sync against async, to S3
#   make test     install into .venv and run all tests
#   make lint     style, types, import directions
#   make bench    the benchmarks that compare with other projects

PYTHON ?= python3
VENV ?= .venv
# Test processes: some tests wait for processes and servers, not for a core. Hundreds of programs are started, which
# keep the bytecode of the modules that they compile.
WORKERS ?= 3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	$(BIN)/asynchooks demo $(ARGS)

test: $(VENV)/.test $(VENV)/.azurite
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/hook_dispatch.py
	$(BIN)/python benchmarks/default_hooks.py
	$(BIN)/python benchmarks/sync_vs_async.py
	$(BIN)/python benchmarks/checkpoint_peers.py --quick
	$(BIN)/python benchmarks/rendezvous.py
	$(BIN)/python benchmarks/scale_model.py --quick

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first, from the constraints: whatever else needs torch is then content with it.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) torch
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: $(VENV)/.%: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) -e '.[$*]'
	@touch $@

# An Azure for the tests; where there is no npm, they are skipped.
$(VENV)/.azurite: Makefile | $(BIN)/python
	if command -v npm >/dev/null; then \
		npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3.37.0; fi
	@touch $@

clean:
	rm -rf $(VENV) .ci-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
