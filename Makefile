# `make serve` and `make test` need no other set-up. `make help` lists the rest.
PYTHON ?= python3
ARGS   ?=
VENV   := .venv
STAMP  := $(VENV)/.installed

.PHONY: help serve test check faults compare docs map lock audit clean

serve: $(STAMP)  ## Serve the embedded model on http://localhost:8000. ARGS="--port 8080" are options of `serve`.
	@exec $(VENV)/bin/furiosa-llm serve $(ARGS)

help:  ## Show this text.
	@echo 'make TARGET [PYTHON=python3.12] [ARGS="..."]'
	@sed -n 's/^\([a-z]*\):.*  ## /  \1\t/p' Makefile | expand -t 12

test: $(STAMP)  ## Run the checks and all tests.
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/test

check: $(STAMP)  ## Check formatting, lint, types and import contracts.
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check

faults: $(STAMP)  ## Write the table of faults of docs/reliability.md.
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/faults

compare: $(STAMP)  ## Compare with other engines. ARGS="--only throughput --peers llama.cpp" for a part of it.
	@$(VENV)/bin/python benchmarks/compare.py $(ARGS)

$(STAMP): pyproject.toml constraints.txt
	@scripts/require-python $(PYTHON) $(or $(MAKECMDGOALS),serve)
	@echo "Installing into $(VENV) (once; a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@scripts/install $(VENV) --editable --group dev
	@touch $@

docs: $(STAMP)  ## Build the documentation as a site, into build/site.
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo "The documentation is in build/site/index.html"

map: $(STAMP)  ## Write the map of docs/architecture.md.
	@$(VENV)/bin/python scripts/module_map.py

lock:  ## Write constraints.txt from pyproject.toml.
	@scripts/lock

audit:  ## Check constraints.txt for known vulnerabilities (needs the network).
	@scripts/audit

clean:  ## Remove the environment and what was built.
	rm -rf $(VENV) dist build
