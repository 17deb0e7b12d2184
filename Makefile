# Each target makes what it needs, the virtual environment included.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-slurm test check lock clean

demo: $(READY)
	$(BIN)/snakemake --cores all
	@sed '/^# Seen/,$$d' results/tables/main.md | cut -d '|' -f 1-5
	@echo 'The whole of it: results/report/index.html'

# Through the Slurm that answers here, or one of this machine that is started for it (of Debian's packages, as it says), in a folder
# of its own; then the tests in which jobs, nodes and daemons of a Slurm are lost.
# What takes seconds is looked at every few, and a node of a few cores does more than one thing at once.
demo-slurm: $(READY)
	mkdir -p .demo-slurm && cp -R Snakefile config profiles workflow .demo-slurm && ln -sfn ../src .demo-slurm/src
	PYTHONPATH=$(CURDIR) $(BIN)/python -m tests.data.slurm sh -c 'cd .demo-slurm && ../$(BIN)/snakemake --profile profiles/slurm --latency-wait 10 --slurm-init-seconds-before-status-checks 3 --set-threads ingest=2'
	@sed '/^# Seen/,$$d' .demo-slurm/results/tables/main.md | cut -d '|' -f 1-5
	@if [ -e results/tables/main.csv ]; then cmp results/tables/main.csv .demo-slurm/results/tables/main.csv && echo 'The same table as that of make demo'; fi
	$(BIN)/python -m pytest -m slow tests/workflow/test_slurm.py

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

# torch first: with it in place nothing later asks for another build of it
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("vltaxon needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock torch torchvision
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@

lock: $(READY)
	{ head -n 1 requirements.lock; $(BIN)/pip freeze --exclude-editable | grep -viE '^(nvidia-|cuda-|triton)'; } > .lock && mv .lock requirements.lock

clean:
	rm -rf results/* results/.state .snakemake
