# dermlab from the checkout. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DERMLAB_CACHE ?= $(CURDIR)/.cache

.PHONY: help install demo test lint format bench docs clean

help:
	@echo "make install   a .venv with dermlab and everything that the targets below need"
	@echo "make demo      the main job on the built-in synthetic clinic: demo/report.html"
	@echo "make test      the test suite"
	@echo "make lint      ruff, mypy, import-linter"
	@echo "make bench     the speed ratios of benchmarks/README.md"
	@echo "make docs      the documentation site in site/"

# torch first and pinned: asked for by a range, pip may take a build with gigabytes of CUDA packages.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep -E '^(torch|torchvision)==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/dermlab demo --out demo

test: install
	$(BIN)/python -m pytest --numprocesses auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/run_all.py

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo site .cache build dist
