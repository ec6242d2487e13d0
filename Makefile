# Every target makes the virtual environment it needs; nothing is installed outside this folder.
PYTHON ?= python3
DEVICE := .venv/device
DEV    := .venv/dev
FULL   := .venv/full

help:            ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(DEVICE)/.ready  ## run the main job on a built-in photograph; writes demo.png
	$(DEVICE)/bin/fer-edge run --source demo --sheet demo.png

test: $(FULL)/.ready    ## run all tests (installs TensorFlow for those of train and export)
	$(FULL)/bin/pytest

check: $(DEV)/.ready    ## lint, types, import rules and the fast tests
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	$(DEV)/bin/pytest -m "not slow"

schema: $(DEV)/.ready   ## write docs/event.schema.json from the code
	$(DEV)/bin/python -m edge.events > docs/event.schema.json

clean:           ## remove the virtual environments and what was built
	rm -rf .venv dist demo.png

$(DEVICE)/.ready: EXTRAS := litert
$(DEV)/.ready:    EXTRAS := dev
$(FULL)/.ready:   EXTRAS := dev,export
.venv/%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv/$*
	.venv/$*/bin/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

.PHONY: help demo test check schema clean
.DEFAULT_GOAL := help
