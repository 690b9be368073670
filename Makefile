# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
# Each target makes the virtual environment where it is missing. PYTHON and VENV name others.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= /tmp/demo
RUN := $(VENV)/.run
DEVELOP := $(VENV)/.develop
# Tests of one file share what they have trained, and stay in one process; files in their own order.
TESTS := -n auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder --cov --cov-report=term

.PHONY: help demo test lint docs bench promise clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(RUN)  ## train on generated images, and write a page about it: a few minutes
	$(VENV)/bin/python main.py --config=configs/restorer.py:demo --workdir=$(DEMO)

test: $(DEVELOP)  ## run the tests
	$(VENV)/bin/python -m pytest $(TESTS) $(PYTEST)

lint: $(DEVELOP)  ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(DEVELOP)  ## build the site into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict

bench: $(DEVELOP)  ## time our steps beside PyTorch's
	$(VENV)/bin/pip install --quiet -r requirements-bench.txt
	$(VENV)/bin/python -m benchmarks.train_step

promise: $(DEVELOP)  ## try what docs/reliability.md promises, the long way, and print its table
	$(VENV)/bin/python -m pytest -m promise

clean:  ## remove the virtual environment, the site and caches
	rm -rf $(VENV) site .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(RUN): requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEVELOP): requirements-dev.txt requirements-docs.txt requirements-onnx.txt requirements-serve.txt requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
