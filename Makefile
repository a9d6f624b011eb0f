# `make help` lists the targets. Everything is installed into .venv; PYTHON says what makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_INPUT ?= resources/samples
DEMO_OUTPUT ?= output/demo
DEMO_WORDS ?= 'maple leaf' 'french fries' eggplant mouse 'soccer ball' teapot flamingo peacock \
	'blue sky' 'sunset sky' 'night sky' 'brick wall' 'painted wall' 'stone wall' 'wooden fence' \
	forest grass water sand snow 'wood floor' 'tiled floor' road dirt gravel carpet
PYTEST_ARGS ?=
# A processor takes a file of tests at a time, with one thread: the models in them are too small to share.
PARALLEL ?= --numprocesses logical --maxprocesses 4 --dist loadfile

# Stamps: an installation is done again only when what it depends on is newer.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_DOCS := $(VENV)/.installed-docs
INSTALLED_WEB := $(VENV)/.installed-web-test
INSTALLED_MATRIX := $(VENV)/.installed-matrix

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# PYTHONWARNINGS: setuptools warns of every editable installation
EDITABLE := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable

# opencv-python needs libGL.so.1, which bare servers lack; its headless twin does not.
define use_working_opencv
@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	echo "opencv-python does not load here: taking opencv-python-headless"; \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless; \
	$(BIN)/python -m pip install --quiet opencv-python-headless; }
endef

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-pinned demo test test-fast test-slow test-browser coverage matrix lock sbom \
	docs ablations lint types format clean distclean

help:  ## say what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## create .venv and install OVSeg and detectron2 into it

install-dev: $(INSTALLED_DEV)  ## the same, with what lint and tests need

# Without build isolation: sources are built by the setuptools that is pinned, too.
HASHED := $(BIN)/python -m pip install --quiet --require-hashes --no-build-isolation --requirement
install-pinned: | $(BIN)/pip  ## the same in the releases of requirements/, each file compared with its hash
	$(HASHED) requirements/build.txt
	$(HASHED) requirements/dev.txt
	$(EDITABLE) --no-deps --no-build-isolation .
	$(use_working_opencv)
	$(BIN)/ovseg install-detectron2
	@touch $(INSTALLED) $(INSTALLED_DEV) $(INSTALLED_WEB) $(INSTALLED_DOCS)

demo: $(INSTALLED)  ## segment the sample images with the embedded model
	$(BIN)/python demo.py --class-names $(DEMO_WORDS) --input $(DEMO_INPUT) --output $(DEMO_OUTPUT)
	@echo "The results are in $(DEMO_OUTPUT)"

test: lint types $(INSTALLED_WEB)  ## lint, types and all tests but those in a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'not browser' $(PYTEST_ARGS)

test-fast: $(INSTALLED_DEV)  ## the quick tests, in a minute or two: nothing that trains or evaluates
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not browser' $(PYTEST_ARGS)

# FUZZ_CASES: of each of some 23 properties
FUZZ_CASES ?= 4400
test-slow: $(INSTALLED_DEV) $(INSTALLED_WEB)  ## 100 000 made-up inputs, folders that vanish, and the web page under eight clients for five minutes
	OVSEG_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest $(PYTEST_ARGS) tests/fuzz
	OVSEG_ALL_WAYS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/engine/test_vanished_folders.py \
		tests/engine/test_shared_training.py
	$(BIN)/python tools/soak_web.py --clients 8 --minutes 5

test-browser: $(INSTALLED_DEV) $(INSTALLED_WEB)  ## the web page, in Chromium or Chrome where one is installed
	$(BIN)/python -m pytest -m browser $(PYTEST_ARGS) tests/web tests/results

coverage: $(INSTALLED_DEV)  ## the quick tests, and how much of the code they run: less than the floor is an error
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not browser' --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

# pyenv shows only the Pythons that PYENV_VERSION names
NOX = PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | sort -rV | paste -sd:)" \
	$(BIN)/python -m nox --no-error-on-missing-interpreters
matrix: $(INSTALLED_MATRIX)  ## Python 3.10 to 3.13 with the oldest, newest and pinned releases of all dependencies
	$(NOX)

lock: $(INSTALLED_MATRIX)  ## pin the newest releases of all dependencies in requirements/
	$(NOX) --session lock -- $(LOCK_ARGS)

sbom: $(INSTALLED_DEV) $(INSTALLED_MATRIX)  ## list all that .venv holds in output/sbom.cdx.json, as CycloneDX
	$(NOX) --session sbom

# NO_MKDOCS_2_WARNING: the theme advertises its successor
docs: $(INSTALLED_DOCS)  ## build the documentation into site/; broken links are errors
	$(BIN)/python tools/build_live_demo.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open site/index.html"

ablations: $(INSTALLED)  ## the paper's ablations in miniature, after the embedded model from scratch
	$(EDITABLE) '.[mining]'
	$(BIN)/python open_clip_training/ablations.py --output output/ablations

lint: $(INSTALLED_DEV)  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_DEV)  ## mypy
	$(BIN)/mypy

format: $(INSTALLED_DEV)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and build leftovers
	rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean  ## the same, and .venv too
	rm -rf $(VENV)

$(BIN)/pip:  # the last file that venv makes
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "error: $(PYTHON) is missing or older than Python 3.10;" \
			"name another: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) has no venv module; install it" \
			"(Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A new pip reads its cache about a third faster than the one that comes with Python.
$(INSTALLED): pyproject.toml setup.py ovseg/cli/install_detectron2.py ovseg/cli/detectron2_wheel.py \
		| $(BIN)/pip
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(EDITABLE) .
	$(use_working_opencv)
	$(BIN)/ovseg install-detectron2
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(EDITABLE) '.[dev]'
	$(use_working_opencv)
	@touch $@

$(INSTALLED_WEB): $(INSTALLED)
	$(EDITABLE) '.[web-test]'
	$(use_working_opencv)
	@touch $@

$(INSTALLED_MATRIX): $(INSTALLED)
	$(EDITABLE) '.[matrix]'
	$(use_working_opencv)
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(EDITABLE) '.[docs]'
	$(use_working_opencv)
	@touch $@
