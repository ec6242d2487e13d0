# Every target makes the virtual environment it needs; nothing is installed outside this folder.
PYTHON ?= python3
DEVICE := .venv/device
DEV    := .venv/dev
FULL   := .venv/full
# A file of tests stays in one process, since its fixtures may be expensive. The order is that of tests/conftest.py.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# The device that `make wheelhouse` and `make size` are for: a 64-bit Raspberry Pi OS Bookworm.
ARCH ?= aarch64
PY   ?= 3.11
CASES ?= 36000
SEED ?= 1
# The Home Assistant that `make homeassistant` drives, and a Python that it takes: 3.13, as in Debian 13.
HA := .venv/homeassistant
HA_VERSION ?= 2025.4.4
HA_PYTHON ?= python3.13

# Where it is set, each program that a test starts would compile all that it imports: of TensorFlow, ten seconds.
unexport PYTHONDONTWRITEBYTECODE

help:            ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(DEVICE)/.ready  ## run the main job on a built-in photograph; writes demo.png
	$(DEVICE)/bin/fer-edge run --source demo --sheet demo.png

test: $(FULL)/.ready    ## run all tests (installs TensorFlow for those of train and export)
	$(FULL)/bin/pytest $(PARALLEL)

check: lint             ## lint, types, import rules and the fast tests
	$(DEV)/bin/pytest $(PARALLEL) -m "not slow"

lint: $(DEV)/.ready     ## lint, types and import rules; pre-commit runs this before each commit
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

coverage: $(FULL)/.ready  ## run all tests and show which lines they leave out; htmlcov/index.html has each file
	$(FULL)/bin/coverage erase
	$(FULL)/bin/pytest $(PARALLEL) --cov --cov-report=term --cov-report=html

release: $(DEV)/.ready  ## build sdist and wheel into dist/, check them, and run the demo from an empty environment
	rm -rf dist .venv/release
	$(DEV)/bin/python -m build --outdir dist .
	$(DEV)/bin/twine check --strict dist/*
	$(PYTHON) -m venv .venv/release
	.venv/release/bin/pip install --quiet --disable-pip-version-check "$$(ls $$PWD/dist/*.whl)[litert]"
	cd dist && ../.venv/release/bin/fer-edge run --source demo
	@ls -l dist

docs: $(DEV)/.ready     ## build the documentation site into site/; a broken link or a page outside the navigation fails
	NO_MKDOCS_2_WARNING=1 $(DEV)/bin/mkdocs build --strict

fuzz: $(DEV)/.ready     ## hand in damaged inputs of every kind; goes on where it stopped: CASES=36000 SEED=1
	$(DEV)/bin/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

homeassistant: $(DEV)/.ready $(HA)/.ready  ## drive a real Home Assistant, which it installs: HA_VERSION=2025.4.4 HA_PYTHON=python3.13
	HOMEASSISTANT=$(CURDIR)/$(HA)/bin/python $(DEV)/bin/pytest tests/homeassistant

schema: $(DEV)/.ready   ## write docs/*.schema.json, of every MQTT payload, from the code
	$(DEV)/bin/python -m edge.mqtt.messages docs

sample: $(DEV)/.ready   ## write systemd/config.toml and docs/configuration.md from the docstrings of edge/settings.py
	$(DEV)/bin/python -m edge.cli.reference > systemd/config.toml
	$(DEV)/bin/python -m edge.cli.reference --markdown > docs/configuration.md

wheelhouse: $(DEVICE)/.ready  ## wheels for a device without internet: ARCH=aarch64|x86_64 PY=3.11|3.13
	$(DEVICE)/bin/python -m export.wheelhouse wheelhouse --arch $(ARCH) --python $(PY)

size: $(DEVICE)/.ready  ## the same, and a table of what it takes on the device's disk
	$(DEVICE)/bin/python -m export.wheelhouse size --arch $(ARCH) --python $(PY)

deb: $(DEVICE)/.ready   ## Debian packages for Bookworm and Trixie: ARCH=arm64|amd64
	$(DEVICE)/bin/python -m export.debian.build --arch $(ARCH)

# uv installs it in a minute, where pip takes many. The extras are what it would fetch itself at its first start.
# 2024 says of josepy only how old it may be.
$(HA)/.ready:
	$(HA_PYTHON) -m venv $(HA)
	$(HA)/bin/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(HA) $(HA)/bin/uv pip install --quiet homeassistant==$(HA_VERSION) $(if $(filter 2024.%,$(HA_VERSION)),'josepy<2')
	VIRTUAL_ENV=$(HA) $(HA)/bin/uv pip install --quiet -c $(HA)/lib/python3*/site-packages/homeassistant/package_constraints.txt \
	  home-assistant-frontend Pillow psutil-home-assistant ifaddr paho-mqtt
	touch $@

clean:           ## remove the virtual environments and what was built
	rm -rf .venv dist site demo.png htmlcov .coverage*

$(DEVICE)/.ready: EXTRAS := litert
$(DEV)/.ready:    EXTRAS := dev
$(FULL)/.ready:   EXTRAS := dev,export
# Python compiles what is imported; pip would compile thousands of modules that nobody imports.
.venv/%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv/$*
	.venv/$*/bin/pip install --quiet --no-compile --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

.PHONY: help demo test check lint coverage release docs fuzz homeassistant schema sample wheelhouse size deb clean
.DEFAULT_GOAL := help
