# make demo    send an SMS with nothing installed but Python        (ONCE=1 ends after it)
# make test    everything: lint, tests on SQLite, PostgreSQL and Redis
# make chaos   kill workers, PostgreSQL and Redis under load, and count  (LONG=1: 10,000 messages a database)
# make lint    only what reads the code: style, types, who imports whom, spelling, templates
# make test-low      the tests with the oldest versions that pyproject.toml allows, on the oldest Python
# make test-pythons  the tests on every Python at hand  (PYTHONS="3.12 3.13")
# make changes collect the files of changes/ in CHANGES.md  (VERSION=0.1.0; without it, only show them)
# make bench   how fast it is, beside its peers    (QUICK=1, ONLY=throughput,latency, DATABASE=sqlite)

PYTHON ?= $(shell for v in 3.13 3.12 3.11; do p=$$(command -v python$$v) && $$p -c 'import ssl, sqlite3' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin
PYTHONS ?= 3.11 3.12 3.13
# The program of a Python version, also where only pyenv has it.
python = $(shell for p in python$(1) $$HOME/.pyenv/versions/$(1).*/bin/python; do \
  p=$$(command -v $$p) && $$p -c 'import ssl, sqlite3' 2>/dev/null && echo $$p && exit; done; echo python$(1))

.PHONY: demo test test-low test-pythons chaos bench lint format changes clean postgresql browser

demo: .venv/made
	$(BIN)/python examples/quickstart.py

# Half of the tests wait for something; two at once wait half as long. Each process has servers of its own.
test: .venv/tested postgresql browser lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-low: .venv-low/tested postgresql browser
	.venv-low/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

test-pythons: postgresql browser $(PYTHONS:%=test-python-%)

# One venv for each Python: .venv-3.12.
test-python-%: .venv-%/tested
	.venv-$*/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

chaos: .venv/tested postgresql
	$(BIN)/python -m tests.chaos.run

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/djlint --lint --quiet flask_communication/templates

format: .venv/tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

changes: .venv/tested
	$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version Unreleased)

bench: benchmarks/.venv/made postgresql
	benchmarks/.venv/bin/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(DATABASE),--database $(DATABASE))

benchmarks/.venv/made: benchmarks/requirements.txt pyproject.toml setup.cfg
	test -x benchmarks/.venv/bin/python || $(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --editable '.[postgresql,metrics]' -r benchmarks/requirements.txt
	touch $@

.venv/made: pyproject.toml setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/tested: .venv/made
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# uv knows how to choose the oldest versions; pip does not.
.venv-low/tested: pyproject.toml setup.cfg
	$(call python,$(firstword $(PYTHONS))) -m venv --clear .venv-low
	.venv-low/bin/python -m pip install --quiet uv
	.venv-low/bin/uv pip install --quiet --python .venv-low/bin/python --resolution lowest-direct \
	  --editable '.[dev]'
	touch $@

.venv-3.%/tested: pyproject.toml setup.cfg
	test -x .venv-3.$*/bin/python || $(call python,3.$*) -m venv .venv-3.$*
	.venv-3.$*/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The tests start a PostgreSQL of their own; here only its programs are needed.
postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { echo "installing PostgreSQL's programs"; \
	    if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	    $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } || \
	  { echo "install PostgreSQL (Debian: apt-get install postgresql), then run make test again"; exit 1; }

# HTML mail is shown to a real browser by the tests.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { echo "installing Chromium"; \
	    if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	    $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  { echo "install Chromium (Debian: apt-get install chromium), then run make test again"; exit 1; }

clean:
	rm -rf .venv .venv-low $(PYTHONS:%=.venv-%) benchmarks/.venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
