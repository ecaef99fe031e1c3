# make train      sets up .venv and trains a network on the embedded world (ARGS="--help" shows what can be chosen)
# make test       sets up .venv and runs the tests that take seconds: every op, every gradient, every room, every command
# make test-all   runs the slow tests as well: everything that this machine can run
# make campaign   kills runs, fills the disk, takes guards out, and prints what was found (ARGS=--help; half an hour)
# make bench      measures FCN-8s here, beside PyTorch if .venv has it (ARGS="layers --only conv3_2": see ARGS=--help)
# make gpu-check  checks and measures a GPU in eight minutes, and writes docs/performance.md (it needs CuPy in .venv)
# make tutorials  sets up .venv with Jupyter and opens the course
# make notebooks  runs the notebooks again and writes their outputs (ARGS="01 02" for some of them)
# make release    makes build/release: the course without solutions, and slides, for teachers
# make lite       makes build/lite: the course as a site that runs in the browser, without an install
# make docs       makes the documentation, build/docs/index.html (it takes MathJax from npm; the pages need no network)
# make lint       ruff, the format of ruff, and mypy
# make clean      removes .venv and what the tools left behind; never a run
#
# Another interpreter: make train PYTHON=python3.12. Tests in one process: make test WORKERS=0

PYTHON ?= python3
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
DOCS := build/docs
# What Python compiles is kept, whatever the environment says: without, each process that a test starts compiles all again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile

.PHONY: help train test test-all campaign bench gpu-check tutorials notebooks release lite docs lint clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile

train: $(VENV)/ready-to-run
	$(BIN)/python -m minifcn.train $(ARGS)

test: $(VENV)/ready-to-test
	$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(VENV)/ready-to-test
	$(PYTEST) $(ARGS)

campaign: $(VENV)/ready-to-test
	$(BIN)/python tests/campaign.py $(ARGS)

bench: $(VENV)/ready-to-run
	$(BIN)/python -m minifcn bench $(or $(ARGS),nets)

gpu-check: $(VENV)/ready-to-test
	$(BIN)/python tests/gpu_check.py $(ARGS)

tutorials: $(VENV)/ready-to-learn
	$(BIN)/python -m jupyterlab tutorials/01_autograd.ipynb $(ARGS)

notebooks: $(VENV)/ready-to-learn
	$(BIN)/python tests/notebooks.py $(ARGS)

release: $(VENV)/ready-to-run
	$(BIN)/python tutorials/teaching/release.py build/release
	@echo "the course for students: build/release"

lite: $(VENV)/ready-for-the-browser
	$(BIN)/python docs/lite.py build/lite
	@echo "the course in the browser: $(BIN)/python -m http.server --directory build/lite"

docs: $(VENV)/ready-to-document
	$(BIN)/python docs/mathjax.py $(DOCS)/_static/mathjax
	$(BIN)/python -m sphinx -W --keep-going --quiet --builder html --conf-dir docs --doctree-dir $(DOCS).doctrees . $(DOCS)
	@echo "the documentation: $(DOCS)/index.html"

lint: $(VENV)/ready-to-lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find minifcn tests tutorials docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Each file `ready-...` is a stamp: what it stands for is installed, and pyproject.toml has not changed since.
$(VENV)/ready-to-run: pyproject.toml | $(VENV)/created
	$(PIP) --editable .
	@touch $@

$(VENV)/ready-to-test: pyproject.toml | $(VENV)/created
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/ready-to-run

$(VENV)/ready-to-learn: pyproject.toml | $(VENV)/created
	$(PIP) --editable '.[notebooks]'
	@touch $@ $(VENV)/ready-to-run

$(VENV)/ready-for-the-browser: pyproject.toml | $(VENV)/created
	$(PIP) --editable '.[lite]'
	@touch $@ $(VENV)/ready-to-run

$(VENV)/ready-to-document: pyproject.toml | $(VENV)/created
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/ready-to-run

$(VENV)/ready-to-lint: pyproject.toml | $(VENV)/created
	$(PIP) --editable '.[lint]'
	@touch $@ $(VENV)/ready-to-run

$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "minifcn: $(PYTHON) is not found. Install Python 3.11.4 or later, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || { \
	  echo "minifcn: $(PYTHON) is $$($(PYTHON) --version 2>&1), and minifcn needs Python 3.11.4 or later. Install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "minifcn: '$(PYTHON) -m venv' is missing. Install it: sudo apt install python3-venv (Debian, Ubuntu), or a Python from python.org" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
