# `make demo` creates the environment and runs the main job; `make test` runs the test suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo install test test-slow test-wide fuzz lint notebooks reports constraints clean

demo: $(STAMP)
	@$(BIN)/justai-sim demo

install: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "justai_sim needs Python 3.11 or newer")'
	@echo "creating $(VENV) (once, a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

# Other examples than CI's, and more of them.
test-wide: $(STAMP)
	HYPOTHESIS_PROFILE=wide $(BIN)/python -m pytest -q -n 2

# Coverage-guided fuzzing of a provider's readers: make fuzz PROVIDER=braze SECONDS=600
PROVIDER ?= segment
SECONDS ?= 600
fuzz: $(STAMP)
	$(BIN)/python tests/fuzzing.py $(PROVIDER) $(SECONDS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The text twin is the source; the .ipynb is made from it, without outputs.
notebooks: $(STAMP)
	$(BIN)/jupytext --to ipynb notebooks/*.py

# The example reports that are committed; the same sources give the same bytes.
reports: $(STAMP)
	$(BIN)/python reports/make.py

# Versions and hashes only; no download addresses.
constraints:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file constraints.txt --upgrade

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
