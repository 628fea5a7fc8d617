# `make demo` sets up and runs the main job; `make test` sets up and runs the tests. Both work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Frames, the Lava environment and downloads stay beside the project
export HARDSPIKE_CACHE ?= $(CURDIR)/.cache

.PHONY: demo test lint clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hardspike needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: $(STAMP)
	rm -rf runs/demo
	$(BIN)/python -m trainer fit --out runs/demo/sast
	$(BIN)/python -m trainer fit --config trainer/recipes/digits_arctan.yaml --out runs/demo/arctan
	$(BIN)/python -m trainer fit --config trainer/recipes/digits_hard.yaml --out runs/demo/hard
	$(BIN)/python -m export nir runs/demo/sast/best.pt -o runs/demo/sast.nir --samples 0
	$(BIN)/python -m eval accuracy runs/demo/sast/best.pt runs/demo/sast.nir runs/demo/arctan/best.pt runs/demo/hard/best.pt --json runs/demo/accuracy.json

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) runs
