# Needs Python 3.11 or newer and make; everything else comes from PyPI into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PAGEWALK := $(BIN)/pagewalk
ZIG := ziglang==0.13.0
.DEFAULT_GOAL := help
.PHONY: help demo test browser bench qiling images record clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

# One stamp per set of packages; a changed pyproject.toml installs again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pagewalk needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m compileall -q emu guest mm # also where PYTHONDONTWRITEBYTECODE is set: start-up is imports
	@touch $@
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m compileall -q emu guest mm
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run  ## run a guest of each architecture and show what happened in its memory
	@for arch in x86_64 aarch64; do \
	  echo; echo "\$$ pagewalk run --stats images/$$arch/gcbarrier"; \
	  $(PAGEWALK) run --stats images/$$arch/gcbarrier || exit 1; \
	done

test: $(VENV)/.dev  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

browser:  ## install Debian's Chromium, in which tests/test_view.py uses the page of `pagewalk view` (as root)
	apt-get install --yes --no-install-recommends chromium

bench: $(VENV)/.dev  ## the table of ratios
	$(BIN)/python -m tests.bench

qiling:  ## install Qiling beside, for the comparison of `make bench`
	$(PYTHON) -m venv .venv-qiling
	.venv-qiling/bin/python -m pip install --quiet --disable-pip-version-check qiling==1.4.6

images: $(VENV)/.dev  ## rebuild the guest programs and the vDSO images
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(ZIG)
	$(BIN)/python images/build.py

record: $(VENV)/.dev  ## run the guest programs under a real Linux 5.10 (ORACLE=path of oracle.py) and keep what they print
	$(BIN)/python images/record.py $(ORACLE)

clean:  ## remove what make made
	rm -rf $(VENV) .venv-qiling .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
