# Everything a newcomer needs: each target makes its own environment first.
#   PYTHON   the interpreter to build it from       VENV  where it lies
#   MINUTES  how long make fuzz or make gpu runs    KILLS    how often make faults kills a training
#   DEVICE, WHEELS, RUN  of make gpu, which benchmarks/README.md explains
#   TORCH    what pip installs first, such as the CPU builds: docs/how-to/devices.md
#   WORKERS  processes that run the tests, each with up to 3 GB of memory
PYTHON ?= python3
VENV ?= .venv
MINUTES ?= 20
DEVICE ?= cuda
KILLS ?= 100
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-all fuzz faults cells lint docs dist bench gpu older mutants clean

help:
	@echo "make install  only install, into .venv"
	@echo "make demo   install and run the demonstration on built-in data"
	@echo "make test   install and run the quick tests: all units, and every trainer (12 minutes on two cores)"
	@echo "make test-all  the whole test suite (50 minutes on two cores); tests/README.md says what it adds"
	@echo "make fuzz   run every command on damaged inputs for MINUTES=20, and keep what goes wrong in fuzz_output/"
	@echo "make faults  kill trainings KILLS=100 times, and each command a tenth as often, and compare what they end with"
	@echo "make cells  print which trainer is tested for which capability of nnU-Net"
	@echo "make lint   ruff and mypy"
	@echo "make docs   build the documentation into site/ (warnings are errors)"
	@echo "make dist   build wheel and source archive into dist/, check them, and install the wheel into a new environment"
	@echo "make bench  step time and memory of every trainer against stock nnU-Net"
	@echo "make gpu    what only a CUDA GPU can show, in MINUTES=8: tests, step times, trainings (DEVICE=cpu tries it out)"
	@echo "make older  predict exported models with older releases of nnU-Net, each in an environment of 2 to 7 GB (half an hour)"
	@echo "make clean  remove what the other targets have made, .venv included"
	@echo "make mutants  which changes of the mathematics the unit tests do not notice (a quarter of an hour or more)"

$(STAMP): setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(if $(TORCH),$(BIN)/python -m pip install --quiet $(TORCH))
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/nnunet_ext demo --out demo_output --force

PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test: $(STAMP)
	$(PYTEST) -m "not full"

test-all: $(STAMP)
	$(PYTEST)

fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(MINUTES) --out fuzz_output

faults: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m faults $(KILLS)

cells: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m support.cells

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	NNUNET_EXT_DIST="$(CURDIR)/dist" $(BIN)/python -m pytest tests/test_packaging.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks.step_time

gpu: MINUTES = 8
gpu:
	$(PYTHON) -m benchmarks.gpu --device $(DEVICE) --minutes $(MINUTES) --out gpu_output \
		$(if $(WHEELS),--wheels $(WHEELS)) $(if $(RUN),--run $(RUN))

older: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m support.older_nnunet $(if $(TORCH),--torch "$(TORCH)")

mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[mutants]"
	PYTHONPATH=tests $(BIN)/python -m support.mutants

clean:
	rm -rf $(VENV) site build dist demo_output bench_output gpu_output mutants_output fuzz_output older_output
