# Everything a fresh machine with Python >= 3.11 needs: `make search` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/search

.PHONY: search test test-all check setup clean

search: $(VENV)/.installed
	$(BIN)/nas search --target host --data digits --trials 16 --rungs 1000,3000 --epochs 4 --out $(OUT)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" -n auto

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
