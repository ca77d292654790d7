# Two commands do everything: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.package
	$(BIN)/obverse demo --output obverse-demo --overwrite

test: $(VENV)/.tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Obverse needs Python 3.11 or newer; name one with: make PYTHON=python3.12 demo"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.package: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) --editable '.[fast]'
	@touch $@

$(VENV)/.tests: $(VENV)/.package
	$(PIP) --editable '.[fast,nufft,learn,test]'
	@touch $@

clean:
	rm -rf $(VENV) obverse-demo
