# Everything a fresh machine with Python >= 3.11 needs: `make search` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/search

# Servers and programs that tests start: name of the program, a colon, Debian's packages. Tests skip visibly where they are missing.
PROGRAMS := sshd:openssh-server ssh:openssh-client adb:adb chromium:chromium psql:postgresql
# What emulates a phone for the slow tests.
EMULATOR := qemu-aarch64-static:qemu-user-static \
  aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,libstdc++6-arm64-cross

.PHONY: search test test-all check docs setup programs clean

# Pictures of reports in a browser, which tests look at.
test test-all: export SCREENSHOTS := $(CURDIR)/build/screenshots

search: $(VENV)/.installed
	$(BIN)/nas search --target host --data digits --trials 16 --rungs 1000,3000 --epochs 4 --out $(OUT)

test: $(VENV)/.installed programs
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-all: PROGRAMS += $(EMULATOR)
test-all: $(VENV)/.installed programs
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(BIN)/pdoc -d google --no-show-source -o build/api searchspace latency nas
	@echo "API documentation: build/api/index.html"

# What is missing of PROGRAMS, where this is Debian and one may install.
programs:
	@missing=; for program in $(PROGRAMS); do \
	  PATH="$$PATH:/usr/sbin" command -v $${program%%:*} >/dev/null || missing="$$missing $${program##*:}"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing$$missing for tests"; \
	  { apt-get -qq update && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $$(echo "$$missing" | tr , ' '); } >/dev/null 2>&1 \
	    || echo "could not: tests that need them are skipped"; \
	fi

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
