# `make demo` draws a picture, `make test` is what CI runs. Both install what they need first.
PYTHON ?= python3
VENV   ?= .venv
PROMPT ?= a large red circle left and a small blue square right on white
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet
STAMP  := $(VENV)/.installed

TYPED  := $(wildcard darkroom shared services loadgen benchmarks tests)
# Processes of tests, each with whole files, so that those of a file share their fleet. There is one
# more than the cores of a small machine: tests of fleets often wait.
PROCESSES ?= 3
TESTS  := $(BIN)/pytest -n $(PROCESSES) --dist loadfile

.PHONY: demo test lint types tests chaos install constraints settings clean

demo: install
	@$(BIN)/darkroom render "$(PROMPT)" --seed 5 --out out/demo.png

# Types are checked beside the tests, which often wait for processes, and reported behind them.
test: lint
	@$(BIN)/mypy $(TYPED) > $(VENV)/types.txt 2>&1 & types=$$!; \
	trap "kill $$types" INT TERM; \
	echo "$(TESTS)"; $(TESTS); tests=$$?; \
	echo "$(BIN)/mypy $(TYPED)"; wait $$types; typed=$$?; cat $(VENV)/types.txt; \
	exit $$((tests | typed))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy $(TYPED)

tests: install
	$(TESTS)

# All that can be harmed, as often as promised; hours. `make chaos CASES="kill broker"` runs some.
# Results are added to out/chaos.json, and the table shows all of them.
chaos: install
	@mkdir -p out
	@$(BIN)/python -m tests.chaos $(CASES) --long --json out/chaos.json

install: $(STAMP)

# setuptools comes first and builds outside isolation, so that its version is pinned too.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Darkroom needs Python 3.11 or newer; set PYTHON=... to one")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two the first time)"
	@$(PIP) install --constraint constraints.txt setuptools
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

# Writes down what is installed; local version suffixes (+cpu) would tie it to one index.
constraints: install
	@{ sed -n '/^#/p' constraints.txt; \
	   $(PIP) freeze --all --exclude-editable --exclude pip | sed 's/+[a-z0-9.]*$$//' | sort -f; \
	 } > constraints.new
	@mv constraints.new constraints.txt

# The page of all settings, from the settings themselves.
settings: install
	@$(BIN)/python -m shared.process.settings_page > settings.new
	@mv settings.new docs/settings.md

clean:
	rm -rf $(VENV) build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
