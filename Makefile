# `make serve` and `make test` need no other set-up.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed

.PHONY: serve test check faults map lock audit clean

serve: $(STAMP)
	@exec $(VENV)/bin/furiosa-llm serve $(ARGS)

test: $(STAMP)
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/test

check: $(STAMP)
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check

faults: $(STAMP)
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/faults

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (once; a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@scripts/install $(VENV) --editable --group dev
	@touch $@

map: $(STAMP)
	@$(VENV)/bin/python scripts/module_map.py

lock:
	@scripts/lock

audit:
	@scripts/audit

clean:
	rm -rf $(VENV) dist build
