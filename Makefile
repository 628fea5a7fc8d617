# `make demo` sets up and runs the main job; `make test` sets up and runs the tests. Both work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Frames, the Lava environment and downloads stay beside the project
export HARDSPIKE_CACHE ?= $(CURDIR)/.cache

.PHONY: demo report test fuzz faults conform mutants readers dist docs lava bench clean distclean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hardspike needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: $(STAMP)
	rm -rf runs/demo
	$(BIN)/python -m trainer fit --out runs/demo/sast
	$(BIN)/python -m trainer fit --config trainer/recipes/digits_sigmoid.yaml --out runs/demo/sigmoid
	$(BIN)/python -m trainer fit --config trainer/recipes/digits_arctan.yaml --out runs/demo/arctan
	$(BIN)/python -m trainer fit --config trainer/recipes/digits_hard.yaml --out runs/demo/hard
	$(BIN)/python -m export nir runs/demo/sast/best.pt -o runs/demo/sast.nir --samples 0
	$(BIN)/python -m eval accuracy runs/demo/sast/best.pt runs/demo/sast.nir runs/demo/sigmoid/best.pt runs/demo/arctan/best.pt runs/demo/arctan/last.pt runs/demo/hard/best.pt --json runs/demo/accuracy.json

# One page about the demo's network, after `make demo`
report: $(STAMP)
	$(BIN)/python -m eval report runs/demo/sast -o runs/demo/report.html

# Files of every kind, changed at random, COUNT of them; full disks, kills, two runs at once
SEED ?= 1
COUNT ?= 20000
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seed $(SEED) --count $(COUNT) --corpus

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.faults

# Random networks through everything that runs one, MINUTES long (0: until it is interrupted), in JOBS
# processes; finds go to the corpus
MINUTES ?= 10
JOBS ?= 1
conform: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.conform --seed $(SEED) --minutes $(MINUTES) --jobs $(JOBS)

# Faults planted in our own code: which of them the tests notice. Ten minutes on a quiet core.
mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.conform.mutants

# What other readers of NIR make of the golden graphs, each reader in an environment of its own
readers: $(STAMP)
	$(BIN)/python -m targets setup reader snntorch spikingjelly norse sinabs rockpool spyx sc-neurocore
	$(BIN)/python -m eval golden runs/golden
	$(BIN)/python -m eval conformance runs/golden/*.nir --json runs/golden/readers.json

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# sdist and wheel, tried in a fresh environment beside files that are called as our packages are
dist: $(STAMP)
	$(BIN)/python -m tests.dist

# The pages of docs/, into build/site
docs: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# The real Lava simulator: set up, a trained network on 100 recordings, then 50 random networks. About ten minutes.
# On N-MNIST with NMNIST=FOLDER (the one of Train/ and Test/), else on the embedded digits.
NMNIST ?=
LAVA_DATA = $(if $(NMNIST),--config trainer/recipes/nmnist_hard.yaml --data.path $(NMNIST) --epochs 15,--epochs 10)
lava: $(STAMP)
	$(BIN)/python -m targets setup lava
	test -f runs/lava/best.pt || $(BIN)/python -m trainer fit $(LAVA_DATA) --out runs/lava
	$(BIN)/python -m eval parity runs/lava/best.pt --targets reference,loihi2,lava,onnxruntime --samples 100 --json runs/lava/parity.json
	$(BIN)/python -m pytest tests/eval/test_lava_parity.py -m lava

# Speed, always as a ratio with both sides in one run; wants a quiet machine. About ten minutes.
# The peers come without what they ask for: that is a torchvision and a torchaudio, which they do not need here.
bench: $(STAMP)
	$(BIN)/pip install --quiet --no-deps spikingjelly==2.0.0 norse==1.1.0 loguru==0.7.3 || echo "peers left out"
	$(BIN)/python -m benchmarks.neuron measure
	$(BIN)/python -m benchmarks.neuron sizes
	$(BIN)/python -m benchmarks.vgg16 measure
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.sast
	$(BIN)/python -m benchmarks.integers
	$(BIN)/python -m benchmarks.processes
	$(BIN)/python -m targets setup lava
	for part in kernels scaling memory lava; do $(BIN)/python -m benchmarks.simulator $$part || exit 1; done
	$(BIN)/python -m benchmarks.simulator nmnist $(if $(NMNIST),--path $(NMNIST))

# What the other rules make again. Trained networks (runs/) and downloads (.cache/) took time: they stay.
clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# All that is not in the repository, trained networks and downloads included
distclean: clean
	rm -rf runs .cache
